//! What lies beside an image, for those who flash it; and that its bits depend on nothing but what is in it.

use std::fs;
use std::path::Path;
use std::process::Command;

use nanoserde::DeJson;

use super::cache;
use super::card;

/// The entry for Raspberry Pi Imager.
#[derive(DeJson)]
struct Repository {
    os_list: Vec<Entry>,
}

#[derive(DeJson)]
struct Entry {
    name: String,
    url: String,
    extract_size: u64,
    extract_sha256: String,
    image_download_size: u64,
}

#[test]
fn bmaptool_writes_the_image_by_its_map_and_finds_every_checksum_right() {
    let image = card::image("qemu-virt");
    let folder = cache::run_folder("image-bmap");
    let written = folder.join("card");
    let copy = |image: &Path, map: &Path| {
        let mut command = Command::new("bmaptool");
        command.arg("copy").arg("--bmap").args([map, image, &written]).output().expect("bmaptool")
    };
    let map = image.with_extension("img.bmap");
    let done = copy(&image, &map);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let bytes = fs::read(&image).expect("the image");
    assert!(bytes == fs::read(&written).expect("the card"), "what is not in the map is not empty");
    // And it does look: one byte is enough.
    let mut wrong = bytes;
    wrong[1 << 20] ^= 1;
    let wrong_image = folder.join("wrong.img");
    fs::write(&wrong_image, &wrong).expect("a damaged image");
    assert!(!copy(&wrong_image, &map).status.success());
    fs::remove_file(wrong_image).expect("the damaged image");
}

#[test]
fn the_entry_for_raspberry_pi_imager_names_the_image_its_size_and_its_checksum() {
    let image = card::image("qemu-virt");
    let text = fs::read_to_string(image.with_extension("json")).expect("the entry");
    let entries = Repository::deserialize_json(&text).expect("JSON").os_list;
    let [entry] = &entries[..] else { panic!("one entry: {text}") };
    let path = entry.url.strip_prefix("file://").expect("a file of this machine");
    assert_eq!(fs::canonicalize(path).unwrap(), fs::canonicalize(&image).unwrap());
    assert!(entry.name.starts_with("multusd for "), "{}", entry.name);
    let size = fs::metadata(&image).unwrap().len();
    assert_eq!((entry.extract_size, entry.image_download_size), (size, size));
    let sum = Command::new("sha256sum").arg(&image).output().expect("sha256sum").stdout;
    assert!(String::from_utf8_lossy(&sum).starts_with(&entry.extract_sha256));
}

#[test]
fn an_image_made_elsewhere_by_somebody_with_other_habits_is_the_same_bit_by_bit() {
    let image = card::image("qemu-virt");
    let target = cache::folder().parent().expect("the build folder").to_path_buf();
    let elsewhere = cache::run_folder("image-elsewhere");
    let copy = |name: &str, more: &[&str]| {
        let to = elsewhere.join(name);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        let done = Command::new("cp").arg("-a").args(more).arg(target.join(name)).arg(&to).status();
        assert!(done.expect("cp").success());
    };
    copy("dist", &[]);
    copy("board/arm64", &[]);
    // Made anew, not taken over.
    for name in ["root.squashfs", "root.ingredients"] {
        fs::remove_file(elsewhere.join("board/arm64").join(name)).expect("the root file system");
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut command = Command::new("sh");
    command.args(["-c", "umask 077; exec \"$@\"", "sh"]).arg(root.join("board/image")).arg("qemu-virt");
    command.env("CARGO_TARGET_DIR", &elsewhere).env("TZ", "Pacific/Kiritimati").env("LANG", "tr_TR.UTF-8");
    let done = command.output().expect("board/image");
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let same =
        fs::read(elsewhere.join("board/images/multusd-qemu-virt.img")).unwrap() == fs::read(image).unwrap();
    assert!(same, "{} differs", elsewhere.display());
    // Asked once more, it has nothing to do.
    let done = command.output().expect("board/image");
    assert!(String::from_utf8_lossy(&done.stdout).ends_with("multusd-qemu-virt.img: as it was\n"));
    fs::remove_dir_all(elsewhere).expect("the copy");
}
