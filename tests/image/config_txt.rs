//! For every board, what the firmware loads is on its card; and the resolver that says so says no
//! when something is missing.

use super::card::{boot_files, image, mtool};
use super::firmware::{Files, Model, Resolved, model_named, resolve};

/// The models that a board's `what` in boards.toml promises.
const PROMISED: [(&str, &[&str]); 7] = [
    ("rpi0", &["1 A", "1 A+", "1 B", "1 B rev 2", "1 B+", "Zero", "Zero W"]),
    ("rpi2", &["2 B", "3 B"]),
    ("rpi3-64", &["3 B", "3 B+", "3 A+", "CM3"]),
    ("rpi-zero2", &["Zero 2 W"]),
    ("rpi4-64", &["4 B", "400", "CM4"]),
    ("rpi5", &["5"]),
    // No firmware reads its card.
    ("qemu-virt", &[]),
];

/// boards.toml.
pub fn boards() -> toml::Table {
    include_str!("../../board/boards.toml").parse().expect("boards.toml")
}

/// The files of a board's image.
pub fn files(board: &str) -> Files {
    let image = image(board);
    let names = boot_files(&image);
    Files::new(names.iter().map(|name| {
        let got = mtool(&image, "mtype", &["-b".into(), format!("::{name}")], None);
        assert!(got.status.success(), "{name}: {}", String::from_utf8_lossy(&got.stderr));
        (name.as_str(), got.stdout)
    }))
}

#[test]
fn the_firmware_finds_everything_it_looks_for_on_the_card_of_every_board_and_model() {
    let mut wrong = Vec::new();
    for board in boards().keys().filter(|name| *name != "common") {
        let promised = PROMISED.iter().find(|(name, _)| name == board);
        let (_, models) = promised.unwrap_or_else(|| panic!("{board}: which models?"));
        if models.is_empty() {
            continue;
        }
        let files = files(board);
        for name in *models {
            match resolve(&files, &model_named(name)) {
                Ok(found) => {
                    println!("{board}, {name}: {} {} {}", found.kernel, found.tree, found.firmware.join(" "));
                    wrong.extend(unlike_us(&found).map(|what| format!("{board}, {name}: {what}")));
                }
                Err(all) => wrong.extend(all.iter().map(|what| format!("{board}, {name}: {what}"))),
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_readme_says_of_every_board_how_far_it_was_tried() {
    let readme = include_str!("../../README.md");
    for board in boards().keys().filter(|name| *name != "common") {
        let row = readme.lines().find(|line| line.starts_with(&format!("| `{board}` |")));
        let row = row.unwrap_or_else(|| panic!("{board} is not in the README's table"));
        // Those of boots.rs and pi3.rs; the others are in foreign.rs.
        let is_booted = ["rpi0", "rpi2", "rpi3-64", "qemu-virt"].contains(&board.as_str());
        let status =
            if is_booted { "booted in QEMU" } else { "kernel and programs booted in QEMU's own machine" };
        assert_eq!(boards()[board]["status"].as_str(), Some(status), "{board}");
        assert!(row.contains(&format!(" {status}, ")) || row.ends_with(&format!(" {status} |")), "{row}");
        assert!(board == "qemu-virt" || row.contains("never run on hardware"), "{row}");
    }
}

/// What an image of ours has to say besides: a kernel that dies restarts, and lines of no owner are let go.
fn unlike_us(found: &Resolved) -> impl Iterator<Item = String> {
    let words: Vec<&str> = found.cmdline.split_whitespace().collect();
    let needed = ["panic=1", "oops=panic", "pinctrl_bcm2835.persist_gpio_outputs=n"];
    let mut all: Vec<String> = needed
        .iter()
        .filter(|word| !words.contains(word))
        .map(|word| format!("cmdline.txt without {word}"))
        .collect();
    if !words.iter().any(|word| word.starts_with("watchdog.open_timeout=")) {
        all.push("cmdline.txt without watchdog.open_timeout".into());
    }
    if found.initramfs.len() != 1 {
        all.push("not one initramfs".into());
    }
    all.into_iter()
}

// ---------------------------------------------------------------- the resolver itself

/// A card that boots a Pi 3 in 64 bits.
fn sound() -> Files {
    let mut kernel = vec![0; 64];
    kernel[0x38..0x3c].copy_from_slice(b"ARMd");
    let tree = b"\xd0\x0d\xfe\xed raspberrypi,3-model-b\0".to_vec();
    let config = "arm_64bit=1\nkernel=vmlinuz\ninitramfs initrd.gz followkernel\nupstream_kernel=1\n\
                  dtoverlay=disable-bt\n[pi4]\nkernel=missing\n[pi3]\ngpio=17,20-21=op,dl\n[all]\n";
    Files::new([
        ("bootcode.bin", Vec::new()),
        ("start.elf", Vec::new()),
        ("fixup.dat", Vec::new()),
        ("config.txt", config.into()),
        ("CMDLINE.TXT", b"console=tty0 panic=1\r\n".into()),
        ("vmlinuz", kernel),
        ("initrd.gz", Vec::new()),
        ("bcm2837-rpi-3-b.dtb", tree),
        ("overlays/disable-bt.dtbo", Vec::new()),
    ])
}

fn pi3() -> Model {
    model_named("3 B")
}

/// What is wrong after a change.
fn complaint(change: impl FnOnce(&mut Files)) -> String {
    let mut files = sound();
    change(&mut files);
    resolve(&files, &pi3()).expect_err("something is wrong").join("; ")
}

/// A change of config.txt by lines behind it.
fn with(more: &str) -> Files {
    let mut files = sound();
    let mut text = files.remove("config.txt").expect("it is there");
    text.extend(more.as_bytes());
    files.put("config.txt", text);
    files
}

#[test]
fn a_sound_card_resolves_to_what_it_says() {
    let found = resolve(&sound(), &pi3()).expect("sound");
    assert_eq!((found.kernel.as_str(), found.is_64bit), ("vmlinuz", true));
    assert_eq!(found.tree, "bcm2837-rpi-3-b.dtb");
    assert_eq!(found.initramfs, ["initrd.gz"]);
    assert_eq!(found.overlays, ["overlays/disable-bt.dtbo"]);
    assert_eq!(found.cmdline, "console=tty0 panic=1");
    assert_eq!(found.firmware, ["bootcode.bin", "start.elf", "fixup.dat"]);
    let low = |pin| (pin, "op,dl".to_string());
    assert_eq!(found.gpio, [low(17), low(20), low(21)]);
}

#[test]
fn whatever_is_missing_is_named() {
    for (file, said) in [
        ("vmlinuz", "there is no kernel vmlinuz"),
        ("initrd.gz", "there is no initrd.gz"),
        ("bcm2837-rpi-3-b.dtb", "there is no device tree bcm2837-rpi-3-b.dtb or bcm2710-rpi-3-b.dtb"),
        ("overlays/disable-bt.dtbo", "there is no overlays/disable-bt.dtbo"),
        ("cmdline.txt", "there is no cmdline.txt"),
        ("config.txt", "there is no config.txt"),
        ("bootcode.bin", "there is no bootcode.bin"),
        ("start.elf", "there is no start.elf"),
        ("fixup.dat", "there is no fixup.dat"),
    ] {
        let all = complaint(|files| drop(files.remove(file).unwrap_or_else(|| panic!("{file} was there"))));
        assert!(all.contains(said), "{file}: {all}");
    }
}

#[test]
fn what_is_there_but_not_right_is_named_too() {
    let all = complaint(|files| files.put("cmdline.txt", "a=1\nb=2\n"));
    assert!(all.contains("cmdline.txt is not one line"), "{all}");
    let all = complaint(|files| files.put("vmlinuz", "MZ"));
    assert!(all.contains("vmlinuz is no kernel of 64 bits"), "{all}");
    let all = complaint(|files| files.put("bcm2837-rpi-3-b.dtb", "\u{0}raspberrypi,3-model-b-plus\0"));
    assert!(all.contains("is no device tree of a raspberrypi,3-model-b"), "{all}");
    let refused = |more: &str| resolve(&with(more), &pi3()).expect_err(more).join("; ");
    assert!(refused("gpio=17=up\n").contains("gpio=17=up is not understood"));
    assert!(refused("gpio=17-3=op\n").contains("is not understood"));
    assert!(refused("just words\n").contains("config.txt:11: no setting: just words"));
    assert!(refused(&format!("#\nx={}\n", "y".repeat(100))).contains("config.txt:12: longer than 98"));
    assert!(refused("include more.txt\n").contains("there is no more.txt"));
}

#[test]
fn a_kernel_under_a_name_of_the_other_width_is_refused() {
    let mut files = with("kernel=kernel.img\n");
    let kernel = files.remove("vmlinuz").expect("it is there");
    files.put("kernel.img", kernel);
    let all = resolve(&files, &pi3()).expect_err("the firmware would start it in 32 bits").join("; ");
    assert!(all.contains("kernel=kernel.img is one of the other width"), "{all}");
    let all = resolve(&sound(), &model_named("2 B")).expect_err("a Pi 2 has 32 bits").join("; ");
    assert!(all.contains("64 bits are more than this model has"), "{all}");
}

#[test]
fn a_prefix_holds_only_where_kernel_and_tree_are_under_it() {
    // Of a prefix with nothing behind it the firmware takes no notice.
    assert_eq!(resolve(&with("os_prefix=old/\n"), &pi3()).expect("sound").kernel, "vmlinuz");
    let mut files = sound();
    for name in ["vmlinuz", "bcm2837-rpi-3-b.dtb", "initrd.gz", "cmdline.txt"] {
        let bytes = files.get(name).expect(name).to_vec();
        files.put(&format!("upstream/{name}"), bytes);
    }
    let found = resolve(&files, &pi3()).expect("sound");
    assert_eq!(
        (found.kernel.as_str(), found.tree.as_str()),
        ("upstream/vmlinuz", "upstream/bcm2837-rpi-3-b.dtb")
    );
    // Overlays are shared, unless a README says otherwise.
    assert_eq!(found.overlays, ["overlays/disable-bt.dtbo"]);
    files.put("upstream/overlays/readme", "");
    let all = resolve(&files, &pi3()).expect_err("no overlay there").join("; ");
    assert!(all.contains("there is no upstream/overlays/disable-bt.dtbo"), "{all}");
}

#[test]
fn a_tree_of_the_other_name_needs_the_overlay_that_adapts_it() {
    let mut files = sound();
    let tree = files.remove("bcm2837-rpi-3-b.dtb").expect("it is there");
    files.put("bcm2710-rpi-3-b.dtb", tree);
    let all = resolve(&files, &pi3()).expect_err("adapted").join("; ");
    assert!(all.contains("there is no overlays/upstream.dtbo"), "{all}");
}

#[test]
fn conditions_hold_for_those_they_name() {
    // Kernel and firmware of another model.
    let all = resolve(&sound(), &model_named("4 B")).expect_err("no such kernel").join("; ");
    assert!(all.contains("there is no kernel missing") && all.contains("there is no start4.elf"), "{all}");
    assert!(!all.contains("bootcode.bin"), "{all}");
    let found = resolve(&with("[pi02]\nkernel=x\n[none]\nkernel=y\n"), &pi3()).expect("not for a Pi 3");
    assert_eq!(found.kernel, "vmlinuz");
    assert!(resolve(&with("[pi3]\nkernel=x\n"), &pi3()).is_err());
}
