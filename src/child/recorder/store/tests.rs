//! The files: cut at every byte, filled, taken away; never grown beyond what they may.

use super::*;
use std::fs;

struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("multusd-record-{test}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Scratch(path)
    }

    fn open(&self, bytes_max: u64, files: usize) -> (Store, u64) {
        Store::open(&self.0, bytes_max, files).unwrap()
    }

    /// Names and contents, in order.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut all: Vec<_> = fs::read_dir(&self.0)
            .unwrap()
            .map(|entry| entry.unwrap())
            .map(|entry| (entry.file_name().into_string().unwrap(), fs::read(entry.path()).unwrap()))
            .collect();
        all.sort();
        all
    }

    /// Numbers of all rows, each of which is whole.
    fn rows(&self) -> Vec<u64> {
        let mut numbers = Vec::new();
        for (name, bytes) in self.files() {
            let rows = bytes.strip_prefix(row::HEADER).unwrap_or_else(|| panic!("{name} begins otherwise"));
            numbers.extend(
                rows.split_inclusive(|byte| *byte == b'\n').map(|line| row::number(line).expect("whole")),
            );
        }
        numbers
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn take(store: &mut Store, name: &str) {
    let moment = Moment { wall_ms: 1_795_332_012_345, ..Moment::default() };
    store.take(&moment, &Row { kind: "input", name, milli: Some(1000), edges: Some(3), ..Row::default() });
    store.write(&moment).unwrap();
}

#[test]
fn whatever_a_power_cut_leaves_of_the_last_row_all_before_it_is_kept_and_the_next_goes_on() {
    let scratch = Scratch::new("cuts");
    let (mut store, _) = scratch.open(8 << 20, 8);
    (0..3).for_each(|_| take(&mut store, "door"));
    let (name, whole) = scratch.files().remove(0);
    let path = scratch.0.join(&name);
    for end in 0..=whole.len() {
        // Storage may have the length and not the bytes, or what was there before.
        for tail in [&b""[..], &[0; 5000], b"garbage\n", &[0; 40_000], b"\n"] {
            let bytes = [&whole[..end], tail].concat();
            fs::write(&path, &bytes).unwrap();
            // The longest beginning of whole lines that is as it was.
            let same = bytes.iter().zip(&whole).take_while(|(one, other)| one == other).count();
            let good = whole[..same].iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
            let kept = whole[..good].iter().filter(|byte| **byte == b'\n').count().saturating_sub(1) as u64;
            let (mut store, cut) = scratch.open(8 << 20, 8);
            assert_eq!(cut, (bytes.len() - good) as u64, "{end} bytes and {} more", tail.len());
            take(&mut store, "after");
            assert_eq!(
                scratch.rows(),
                (1..=kept + 1).collect::<Vec<_>>(),
                "{end} bytes and {} more",
                tail.len()
            );
            assert!(scratch.files()[0].1.starts_with(&whole[..good]));
            assert_eq!(scratch.files()[0].0, name);
        }
    }
}

#[test]
fn all_files_together_are_never_larger_than_they_may_be_and_numbers_go_on_without_holes() {
    let scratch = Scratch::new("size");
    let bytes_max = 4 * 4096;
    let (mut store, _) = scratch.open(bytes_max, 4);
    let mut begun = Vec::new();
    for number in 0..1000 {
        if number % 97 == 0 {
            store = scratch.open(bytes_max, 4).0;
        }
        take(&mut store, "door");
        let files = scratch.files();
        let size: usize = files.iter().map(|(_, bytes)| bytes.len()).sum();
        assert!(size as u64 <= bytes_max && files.len() <= 4, "{size} bytes in {}", files.len());
        begun.push(files[0].0.clone());
    }
    let rows = scratch.rows();
    assert_eq!(rows, (1001 - rows.len() as u64..=1000).collect::<Vec<_>>());
    assert!(rows.len() > 100, "{}", rows.len());
    begun.dedup();
    assert!(begun.len() > 10, "{} files were removed", begun.len());
}

#[test]
fn a_directory_without_files_begins_another_record_and_strange_files_are_left_alone() {
    let scratch = Scratch::new("record");
    let strange = "record-0123456789abcdef-x.csv";
    fs::write(scratch.0.join(strange), "x").unwrap();
    let record = |store: Store| store.record().to_owned();
    let first = record(scratch.open(8 << 20, 2).0);
    assert_eq!(record(scratch.open(8 << 20, 2).0), first);
    fs::remove_file(scratch.0.join(name_of(&first, 1))).unwrap();
    assert_ne!(record(scratch.open(8 << 20, 2).0), first);
    assert_eq!(fs::read(scratch.0.join(strange)).unwrap(), b"x");
    assert_eq!(of_name("record-0123456789abcdef-000000000012.csv"), Some(("0123456789abcdef", 12)));
}

#[test]
fn a_file_that_somebody_took_away_is_followed_by_another() {
    let scratch = Scratch::new("taken");
    let (mut store, _) = scratch.open(8 << 20, 2);
    take(&mut store, "door");
    fs::remove_file(scratch.0.join(name_of(store.record(), 1))).unwrap();
    store.sync().unwrap();
    take(&mut store, "door");
    assert_eq!(scratch.rows(), [2]);
    assert_eq!(scratch.files()[0].0, name_of(store.record(), 2));
}

#[test]
fn storage_that_takes_nothing_costs_rows_only_beyond_what_may_wait_and_that_is_a_row() {
    let scratch = Scratch::new("full");
    let (mut store, _) = scratch.open(8 << 20, 2);
    let file =
        std::mem::replace(&mut store.file, fs::File::options().write(true).open("/dev/full").unwrap().into());
    let moment = Moment::default();
    for _ in 0..3000 {
        store.take(&moment, &Row { kind: "input", name: "door", ..Row::default() });
        assert_eq!(store.write(&moment).unwrap_err().errno, if store.is_torn { libc::ENOSPC } else { 0 });
        // What can be cut is another thing for a device.
        store.is_torn = false;
    }
    store.file = file;
    store.write(&moment).unwrap();
    let rows = scratch.rows();
    assert_eq!(rows, (1..=rows.len() as u64).collect::<Vec<_>>());
    let (_, bytes) = scratch.files().remove(0);
    let text = String::from_utf8(bytes).unwrap();
    let lost = 3000 - (rows.len() - 1);
    assert!(lost > 1000 && text.contains(&format!(",recorder,lost,{lost},")), "{lost}");
}
