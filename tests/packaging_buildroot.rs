//! Buildroot's external tree, `buildroot-package/`, as far as no Buildroot is needed: that it is of this version and names
//! files that exist, that its hooks and its scripts do what they say, and that the image it makes is made from `board/`.
//! `packaging/test-buildroot DIR` tries it with a Buildroot.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PACKAGE: &str = "buildroot-package/package/multusd";
const BOARDS: [&str; 6] = [
    "qemu_aarch64_virt",
    "raspberrypi0w",
    "raspberrypi3_64",
    "raspberrypi4_64",
    "raspberrypi5",
    "raspberrypizero2w",
];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn toml(path: &str) -> toml::Table {
    read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What Cargo.toml says of the project.
fn project(key: &str) -> String {
    toml("Cargo.toml")["package"][key].as_str().unwrap_or_else(|| panic!("no {key}")).into()
}

/// A fresh folder of one test.
fn folder(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("packaging-buildroot").join(name);
    let _ = fs::remove_dir_all(&folder);
    fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// Runs a command to its end; what it wrote, and a failure with what it complained of.
fn run(command: &mut Command) -> String {
    let done = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{command:?}: {said}{}", String::from_utf8_lossy(&done.stdout));
    String::from_utf8(done.stdout).expect("UTF-8")
}

/// What make makes of the package: the lines after the last of it, with so much of Buildroot as it calls.
fn make(settings: &[&str], last: &str) -> String {
    let root = root().display();
    let text = format!(
        "qstrip = $(strip $(subst \",,$(1)))\n\
         github = https://github.com/$(1)/$(2)/archive/$(3)\n\
         UPPERCASE = $(shell echo '$(1)' | tr a-z- A-Z_)\n\
         KCONFIG_ENABLE_OPT = $(1)\nSED = sed -i -e\nINSTALL = install\n\
         MULTUSD_DIR = {root}\n{}\ninclude {root}/{PACKAGE}/multusd.mk\n{last}\n",
        settings.join("\n")
    );
    let mut command = Command::new("make");
    command.args(["-s", "--no-print-directory", "-f", "-"]).env_remove("MAKEFLAGS").env_remove("MFLAGS");
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("make");
    child.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("make reads");
    let done = child.wait_with_output().expect("make ends");
    assert!(done.status.success(), "{text}\n{}", String::from_utf8_lossy(&done.stderr));
    String::from_utf8(done.stdout).expect("UTF-8").trim().into()
}

/// A variable of the package.
fn variable(settings: &[&str], name: &str) -> String {
    make(settings, &format!("$(info $({name}))\nall:"))
}

const PREBUILT: &str = "BR2_PACKAGE_MULTUSD_PREBUILT = y";

/// The names and sums in the package's file of hashes.
fn hashes() -> Vec<(String, String)> {
    let text = read(format!("{PACKAGE}/multusd.hash"));
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .map(|line| match line.split("  ").collect::<Vec<_>>()[..] {
            ["sha256", sum, name] => (name.into(), sum.into()),
            _ => panic!("{line:?}: sha256, sum and name, two spaces between them"),
        })
        .collect()
}

/// The configurations, by board.
fn defconfigs() -> Vec<(&'static str, String)> {
    let names = BOARDS.iter();
    names
        .map(|&board| (board, read(format!("buildroot-package/configs/multusd_{board}_defconfig"))))
        .collect()
}

/// Names that begin so, wherever they stand in a text.
fn names_with<'a>(text: &'a str, prefix: &str) -> BTreeSet<&'a str> {
    let found = text.match_indices(prefix).map(|(at, _)| {
        let rest = &text[at..];
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        &rest[..end]
    });
    found.collect()
}

#[test]
fn what_is_fetched_is_this_version_from_the_projects_address_and_has_a_hash() {
    let (version, address) = (project("version"), project("repository"));
    let mut wanted = BTreeSet::from([format!("multusd-{version}-cargo6.tar.gz")]);
    assert_eq!(variable(&[], "MULTUSD_VERSION"), version);
    assert_eq!(variable(&[], "MULTUSD_SITE"), format!("{address}/archive/v{version}"));
    let targets = read("release/targets.sh");
    let machines =
        targets.split_once("targets='").and_then(|(_, rest)| rest.split_once('\'')).expect("targets").0;
    for machine in machines.split(' ') {
        let settings = [PREBUILT, &format!("BR2_PACKAGE_MULTUSD_MACHINE = \"{machine}\"")];
        assert_eq!(variable(&settings, "MULTUSD_SITE"), format!("{address}/releases/download/v{version}"));
        wanted.insert(variable(&settings, "MULTUSD_SOURCE"));
        assert!(wanted.contains(&format!("multusd-{version}-{machine}.tar.gz")), "{wanted:?}");
        let kconfig = read(format!("{PACKAGE}/Config.in"));
        assert!(kconfig.contains(&format!("default \"{machine}\" if ")), "Config.in knows no {machine}");
    }
    let found: BTreeSet<String> =
        hashes().into_iter().map(|(name, _)| name).filter(|name| name.contains(".tar")).collect();
    assert_eq!(found, wanted);
    assert!(read(format!("{PACKAGE}/Config.in")).contains(&format!("\n\t  {address}\n")));
}

#[test]
fn the_licences_are_there_with_their_hashes() {
    let files = variable(&[], "MULTUSD_LICENSE_FILES");
    let prebuilt = variable(&[PREBUILT], "MULTUSD_LICENSE_FILES");
    let base = |files: &str| {
        files.split(' ').map(|path| path.rsplit('/').next().unwrap().into()).collect::<Vec<String>>()
    };
    assert_eq!(base(&files), base(&prebuilt), "the archive has them on top");
    let names: BTreeSet<_> = files.split(' ').chain(prebuilt.split(' ')).collect();
    assert!(
        ["LICENSE-MIT", "LICENSE-APACHE", "THIRD-PARTY", "packaging/THIRD-PARTY"]
            .iter()
            .all(|n| names.contains(n))
    );
    for name in names {
        let here = if name == "THIRD-PARTY" { "packaging/THIRD-PARTY" } else { name };
        let sum = run(Command::new("sha256sum").arg(root().join(here)));
        let found = hashes().into_iter().find(|(file, _)| file == name).expect(name);
        assert_eq!(found.1, sum[..64], "{name}: run packaging/third-party, or packaging/buildroot-hash");
    }
    assert_eq!(variable(&[], "MULTUSD_LICENSE").replace("or", "OR"), project("license"));
}

#[test]
fn every_file_that_the_tree_names_exists() {
    let mut looked = 0;
    let mut texts: Vec<String> = defconfigs().into_iter().map(|(_, text)| text).collect();
    for file in [
        "external.mk",
        "Config.in",
        "local.mk.example",
        "package/multusd/Config.in",
        "package/multusd/multusd.mk",
    ] {
        texts.push(read(format!("buildroot-package/{file}")));
    }
    for text in &texts {
        let text =
            text.replace("$BR2_EXTERNAL", "$(BR2_EXTERNAL").replace("PATH/package/m", "PATH)/package/m");
        for rest in text.split("$(BR2_EXTERNAL_MULTUSD_PATH)").skip(1) {
            let path = rest.split(['"', ' ', '\n', '*']).next().unwrap_or_default();
            assert!(root().join(format!("buildroot-package{path}")).exists(), "{path:?}");
            looked += 1;
        }
    }
    assert!(looked > 6 * 4, "{looked}");
    assert!(Path::new(&variable(&[], "MULTUSD_SAMPLE")).exists());
    let init = PathBuf::from(variable(&[], "MULTUSD_INIT_FILES"));
    for rest in read(format!("{PACKAGE}/multusd.mk")).split("$(MULTUSD_INIT_FILES)/").skip(1) {
        let name = rest.split_whitespace().next().unwrap_or_default();
        assert!(init.join(name).exists(), "no {name} in {}", init.display());
    }
}

#[test]
fn every_option_of_multusd_that_is_named_exists() {
    let kconfig = read(format!("{PACKAGE}/Config.in"));
    let defined: BTreeSet<&str> =
        kconfig.lines().filter_map(|line| line.trim_start_matches("menu").strip_prefix("config ")).collect();
    assert!(defined.contains("BR2_PACKAGE_MULTUSD_INIT_INITTAB"), "{defined:?}");
    let mut texts: Vec<String> = defconfigs().into_iter().map(|(_, text)| text).collect();
    texts.extend([
        kconfig.clone(),
        read(format!("{PACKAGE}/multusd.mk")),
        read("buildroot-package/README.md"),
    ]);
    for text in &texts {
        for name in names_with(text, "BR2_PACKAGE_MULTUSD") {
            assert!(defined.contains(name), "{name}");
        }
    }
}

#[test]
fn all_boards_agree_in_what_makes_them_multusds() {
    let all = defconfigs();
    let listed = fs::read_dir(root().join("buildroot-package/configs")).expect("the folder").count();
    assert_eq!(listed, BOARDS.len());
    // What may differ: processor, toolchain, kernel, firmware, the board's name.
    let own = ["BR2_a", "BR2_cortex", "BR2_ARM_", "BR2_TOOLCHAIN_", "BR2_GLOBAL_PATCH", "BR2_LINUX_KERNEL_"];
    let own =
        [&own[..], &["BR2_PACKAGE_RPI", "BR2_PACKAGE_XZ", "BR2_PACKAGE_KMOD", "BR2_ROOTFS_POST_SCRIPT_ARGS"]]
            .concat();
    let shared = |text: &str| -> BTreeSet<String> {
        text.lines().filter(|line| !own.iter().any(|own| line.starts_with(own))).map(String::from).collect()
    };
    let boards = toml("board/boards.toml");
    for (name, text) in &all {
        assert_eq!(shared(text), shared(&all[0].1), "{name} and {}", all[0].0);
        let args = text
            .split_once("POST_SCRIPT_ARGS=\"")
            .and_then(|(_, rest)| rest.split_once('"'))
            .expect("args")
            .0;
        let what = boards[args]["what"].as_str().expect("what it is");
        assert!(what.contains("Raspberry Pi") || *name == "qemu_aarch64_virt", "{name}: {what}");
        for line in ["board/buildroot/linux.fragment\"", "_MUSL_STABLE=y"] {
            assert!(text.contains(line), "{name} has no {line}");
        }
        let executable = boards[args]["multusd"].as_str().expect("its executable");
        assert_eq!(text.contains("BR2_arm=y"), executable == "armv6", "{name}: {executable}");
    }
    for line in [
        "BR2_PACKAGE_MULTUSD=y",
        "# BR2_TARGET_ENABLE_ROOT_LOGIN is not set",
        "# BR2_TARGET_GENERIC_REMOUNT_ROOTFS_RW is not set",
    ] {
        assert!(shared(&all[0].1).contains(line), "{line}");
    }
}

#[test]
fn the_kernel_is_given_what_the_package_asks_for() {
    let fixups = variable(&[], "MULTUSD_LINUX_CONFIG_FIXUPS");
    let fragment = read("board/buildroot/linux.fragment");
    for option in [
        "CONFIG_WATCHDOG",
        "CONFIG_GPIOLIB",
        "CONFIG_GPIO_CDEV",
        "CONFIG_CGROUPS",
        "CONFIG_MEMCG",
        "CONFIG_CGROUP_PIDS",
    ] {
        assert!(fixups.split_whitespace().any(|word| word == option), "{option}: {fixups}");
        assert!(fragment.contains(&format!("\n{option}=y\n")), "{option}");
    }
}

#[test]
fn it_is_built_for_size_as_cargo_toml_says_and_with_the_flags_of_cargos_configuration() {
    let arm =
        ["BR2_arm = y", "BR2_TOOLCHAIN_USES_MUSL = y", "RUSTC_TARGET_NAME = arm-unknown-linux-musleabihf"];
    let words = variable(&[], "MULTUSD_CARGO_ENV");
    let profile = &toml("Cargo.toml")["profile"]["release"];
    for (key, name) in [("opt-level", "OPT_LEVEL"), ("lto", "LTO"), ("codegen-units", "CODEGEN_UNITS")] {
        let value = &profile[key];
        let value =
            value.as_str().map_or_else(|| value.as_integer().expect("a number").to_string(), String::from);
        let word = format!("CARGO_PROFILE_RELEASE_{name}={value}");
        assert!(words.split(' ').any(|found| found == word), "{word}: {words}");
    }
    // Buildroot replaces the file: what it says for a machine has to come from here.
    assert!(!words.contains("libc_unstable"), "{words}");
    let given = variable(&arm, "MULTUSD_CARGO_ENV");
    let (_, given) = given.split_once("CARGO_TARGET_ARM_UNKNOWN_LINUX_MUSLEABIHF_RUSTFLAGS=").expect("flags");
    let mut flagged = 0;
    for (target, table) in toml(".cargo/config.toml")["target"].as_table().expect("targets") {
        let Some(flags) = table.get("rustflags") else { continue };
        let flags: Vec<&str> =
            flags.as_array().expect("flags").iter().map(|flag| flag.as_str().unwrap()).collect();
        assert!(target.contains("arm") && given.contains(&flags.join(" ")), "{target}: {flags:?}, {given}");
        flagged += 1;
    }
    assert_eq!(flagged, 2);
}

#[test]
fn the_line_of_inittab_is_there_once_however_often_the_hook_runs() {
    let line = read("packaging/init/inittab.line");
    let hook = |target: &Path| {
        let settings =
            ["BR2_PACKAGE_MULTUSD_INIT_INITTAB = y", &format!("TARGET_DIR = {}", target.display())];
        make(&settings, "all:\n\t$(MULTUSD_INSTALL_INITTAB)");
    };
    // As Buildroot has it; with no end of its last line; with what an earlier version put there.
    let before = "::sysinit:/etc/init.d/rcS\n::shutdown:/sbin/swapoff -a";
    let old = format!("::respawn:/usr/sbin/multusd --old\n{before}\n");
    for (case, text) in [("usual", format!("{before}\n")), ("cut", before.into()), ("old", old)] {
        let target = folder("inittab").join(case);
        fs::create_dir_all(target.join("etc")).expect("a folder");
        fs::write(target.join("etc/inittab"), text).expect("inittab");
        for _ in 0..3 {
            hook(&target);
            let found = fs::read_to_string(target.join("etc/inittab")).expect("inittab");
            assert_eq!(found, format!("{before}\n{line}"), "{case}");
        }
    }
    let settings = ["BR2_PACKAGE_MULTUSD_INIT_SCRIPT = y"];
    assert_eq!(variable(&settings, "MULTUSD_TARGET_FINALIZE_HOOKS"), "", "with the script there is no line");
    assert!(variable(&settings, "MULTUSD_INSTALL_INIT_SYSV").contains("/etc/init.d/S15multusd"));
}

#[test]
fn script_line_and_package_mean_the_same_executable() {
    let script = read("packaging/init/S15multusd");
    for line in ["DAEMON=\"multusd\"", "PIDFILE=\"/var/run/$DAEMON.pid\"", "# Provides:          multusd"] {
        assert!(script.lines().any(|found| found == line), "{line}");
    }
    assert!(script.contains("--exec \"/usr/sbin/$DAEMON\""));
    assert_eq!(read("packaging/init/inittab.line"), "::respawn:/usr/sbin/multusd\n", "one line, BusyBox's");

    // Installed as the package does, with every name of release/applets.
    let target = folder("installed");
    for name in ["multusd", "multusd.cfg"] {
        fs::write(target.join(name), name).expect("a file");
    }
    let settings = [
        PREBUILT,
        "BR2_PACKAGE_MULTUSD_SAMPLE_CONFIG = y",
        &format!("MULTUSD_DIR = {0}\nTARGET_DIR = {0}/root", target.display()),
    ];
    make(
        &settings,
        &format!(
            "MULTUSD_DIR = {}\nall:\n\t$(MULTUSD_INSTALL_TARGET_CMDS)\n\t$(MULTUSD_INSTALL_SAMPLE)",
            target.display()
        ),
    );
    assert_eq!(fs::read_to_string(target.join("root/usr/sbin/multusd")).expect("installed"), "multusd");
    assert_eq!(fs::read_to_string(target.join("root/etc/multusd.cfg")).expect("installed"), "multusd.cfg");
    for applet in read("release/applets").lines() {
        assert_eq!(fs::read_to_string(target.join("root/usr/bin").join(applet)).expect(applet), "multusd");
    }
}

/// What Buildroot leaves for the image: a kernel, a root file system, and firmware unless it is for QEMU.
fn images(name: &str, kernel: &str, is_pi: bool) -> PathBuf {
    let images = folder(name).join("images");
    let mut files = vec![kernel.to_string()];
    if is_pi {
        files.extend(
            ["bcm2710-rpi-3-b.dtb", "rpi-firmware/start.elf", "rpi-firmware/bootcode.bin"].map(String::from),
        );
        // Buildroot's own, which are not to win.
        files.extend(
            ["rpi-firmware/config.txt", "rpi-firmware/cmdline.txt", "rpi-firmware/overlays/x.dtbo"]
                .map(String::from),
        );
    }
    for file in files {
        let path = images.join(&file);
        fs::create_dir_all(path.parent().unwrap()).expect("a folder");
        fs::write(path, &file).expect("a file");
    }
    let root = fs::File::create(images.join("rootfs.ext4")).expect("a file");
    root.set_len(1 << 20).expect("its size");
    images
}

fn post_image(images: &Path, words: &[&str]) {
    let mut command = Command::new(root().join("board/buildroot/post-image.sh"));
    run(command.arg(images).args(words).env_remove("TARGET_DIR"));
}

/// A file of a FAT, and the names of all.
fn fat(image: &Path, file: &str) -> String {
    run(Command::new("mtype").arg("-i").arg(image).arg(format!("::{file}")))
}
fn names(image: &Path) -> BTreeSet<String> {
    let text = run(Command::new("mdir").args(["-b", "-/", "-i"]).arg(image).arg("::"));
    text.lines().map(|line| line.trim_start_matches("::/").into()).collect()
}

/// Type, first and last sector of the primary partitions of a card.
fn partitions(card: &Path) -> Vec<(u8, u32)> {
    let bytes = fs::read(card).expect("the card");
    assert_eq!(&bytes[510..512], b"\x55\xaa");
    assert_eq!(&bytes[440..444], &0x4d55_4c54u32.to_le_bytes(), "what the kernel finds its root by");
    let entries = bytes[446..510].chunks(16);
    entries
        .map(|entry| (entry[4], u32::from_le_bytes(entry[8..12].try_into().unwrap())))
        .filter(|entry| entry.0 != 0)
        .collect()
}

#[test]
fn the_card_is_made_from_the_files_of_board() {
    let images = images("card", "Image", true);
    post_image(&images, &["rpi3-64"]);
    let boot = images.join("boot.vfat");
    let found = names(&boot);
    for name in [
        "vmlinuz",
        "config.txt",
        "cmdline.txt",
        "multusd.cfg",
        "outputs.txt",
        "start.elf",
        "bcm2710-rpi-3-b.dtb",
        "overlays/x.dtbo",
    ] {
        assert!(found.contains(name), "{name}: {found:?}");
    }
    assert_eq!(fat(&boot, "vmlinuz"), "Image");
    assert_eq!(fat(&boot, "multusd.cfg").replace("\r\n", "\n"), read("board/multusd.cfg"));

    // Its lines are those of board/, but for what belongs to another kernel; its settings those of the board.
    let config = fat(&boot, "config.txt");
    let ours: BTreeSet<&str> = config.lines().filter(|line| !line.starts_with('#')).collect();
    let template = read("board/config.txt");
    let mut wanted: BTreeSet<&str> = template.lines().filter(|line| !line.starts_with('#')).collect();
    for other in ["@SETTINGS@", "upstream_kernel=1", "initramfs initramfs.gz followkernel"] {
        assert!(wanted.remove(other), "{other} is in board/config.txt");
    }
    wanted.insert("arm_64bit=1");
    assert_eq!(ours, wanted);
    let line = fat(&boot, "cmdline.txt");
    let template = read("board/cmdline.txt").replace("@CONSOLE@", "serial0");
    let rest = line.strip_prefix(template.trim_end()).expect("the words of board/cmdline.txt");
    assert_eq!(rest, " cgroup_enable=memory root=PARTUUID=4d554c54-02 rootfstype=ext4 ro rootwait\n");
    let kinds = partitions(&images.join("sdcard.img"));
    assert_eq!(kinds.iter().map(|entry| entry.0).collect::<Vec<_>>(), [0x0C, 0x83, 0x83]);
    assert!(kinds.iter().all(|entry| entry.1 % 2048 == 0), "at whole megabytes: {kinds:?}");
    let folders = run(Command::new("/sbin/debugfs").args(["-R", "ls -l /"]).arg(images.join("data.ext4")));
    for name in ["multusd", "programs", "log"] {
        let line = folders.lines().find(|line| line.ends_with(&format!(" {name}"))).expect(name);
        assert_eq!(line.split_whitespace().collect::<Vec<_>>()[1..5], ["40755", "(2)", "0", "0"], "root's");
    }
}

#[test]
fn a_card_with_two_systems_boots_each_with_its_own_root() {
    let images = images("two", "zImage", true);
    post_image(&images, &["rpi0", "ab"]);
    for (slot, root) in [("a", "05"), ("b", "06")] {
        let boot = images.join(format!("boot-{slot}.vfat"));
        assert!(fat(&boot, "cmdline.txt").contains(&format!("root=PARTUUID=4d554c54-{root} ")));
        assert_eq!(fat(&boot, "vmlinuz"), "zImage");
        assert!(!names(&boot).contains("multusd.cfg"), "there is one for both");
    }
    let select = images.join("select.vfat");
    for name in ["multusd.cfg", "autoboot.txt", "bootcode.bin", "config.txt"] {
        assert!(names(&select).contains(name), "{name}");
    }
    let auto = fat(&select, "autoboot.txt");
    assert_eq!(
        auto.lines().collect::<Vec<_>>(),
        ["[all]", "tryboot_a_b=1", "boot_partition=2", "[tryboot]", "boot_partition=3"]
    );
    let kinds = partitions(&images.join("sdcard-ab.img"));
    assert_eq!(
        kinds.iter().map(|entry| entry.0).collect::<Vec<_>>()[..3],
        [0x0C; 3],
        "within the firmware's reach"
    );
    assert!([0x05, 0x0F].contains(&kinds[3].0), "the roots are logical ones: {kinds:?}");
}

#[test]
fn whoever_makes_a_card_where_and_when_it_is_the_same() {
    for (layout, card) in [(None, "sdcard.img"), (Some("ab"), "sdcard-ab.img")] {
        let name = format!("same-{}", layout.unwrap_or("one"));
        let ours = images(&name, "Image", true);
        post_image(&ours, &["rpi3-64"].into_iter().chain(layout).collect::<Vec<_>>());
        let theirs = images(&format!("{name}/in/a/longer/path"), "Image", true);
        let mut command = Command::new("sh");
        command.args(["-c", "umask 077; exec \"$@\"", "sh"]);
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            run(Command::new("chown").args(["-R", "65534:65534"]).arg(&theirs));
            command.args(["setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups"]);
        }
        // A year later, by the clock, not by what files say of themselves.
        command.env("NO_FAKE_STAT", "1");
        command
            .args(["faketime", "-f", "+400d"])
            .arg(root().join("board/buildroot/post-image.sh"))
            .arg(&theirs);
        command.arg("rpi3-64").args(layout).env_remove("TARGET_DIR");
        run(command.env("TZ", "Pacific/Chatham").env("LC_ALL", "C.UTF-8").env("HOME", "/nonexistent"));
        run(Command::new("cmp").args([ours.join(card), theirs.join(card)]));
    }
}

#[test]
fn a_card_has_the_configuration_of_the_root_file_system_and_a_wrong_board_is_named() {
    let images = images("own", "Image", false);
    let target = images.join("target");
    fs::create_dir_all(target.join("etc")).expect("a folder");
    fs::write(target.join("etc/multusd.cfg"), "[program:mine]\ncommand = /bin/mine\n").expect("a file");
    let script = root().join("board/buildroot/post-image.sh");
    run(Command::new(&script).arg(&images).arg("qemu-virt").env("TARGET_DIR", &target));
    assert_eq!(fat(&images.join("boot.vfat"), "multusd.cfg"), "[program:mine]\r\ncommand = /bin/mine\r\n");
    assert!(fat(&images.join("boot.vfat"), "cmdline.txt").contains("console=ttyAMA0,115200 "));
    for (words, complaint) in
        [(["rpi9", "ab"], "no board 'rpi9': "), (["rpi5", "abc"], "no layout 'abc': say ab, or nothing")]
    {
        let done = Command::new(&script).arg(&images).args(words).output().expect("a shell");
        let said = String::from_utf8_lossy(&done.stderr);
        assert!(!done.status.success() && said.contains(complaint), "{said}");
    }
}

#[test]
fn the_root_file_system_mounts_the_cards_partitions_once_however_often_the_script_runs() {
    let target = folder("post-build");
    fs::create_dir_all(target.join("etc")).expect("a folder");
    fs::write(target.join("etc/fstab"), "/dev/root\t/\text2\trw,noauto\t0\t1\n").expect("fstab");
    let mut first = None;
    for _ in 0..3 {
        run(Command::new(root().join("board/buildroot/post-build.sh")).arg(&target).arg("rpi3-64"));
        let found = fs::read_to_string(target.join("etc/fstab")).expect("fstab");
        assert_eq!(*first.get_or_insert(found.clone()), found);
    }
    let fstab = first.expect("it ran");
    let card = read("board/buildroot/genimage.cfg.in") + &read("board/buildroot/genimage-ab.cfg.in");
    for label in ["MULTUSD", "data"] {
        assert!(
            fstab
                .lines()
                .any(|line| line.starts_with(&format!("LABEL={label}\t")) && line.contains(",nofail,")),
            "{fstab}"
        );
        assert_eq!(card.matches(&format!("label = \"{label}\"")).count(), 2, "in both layouts: {label}");
    }
    assert_eq!(fs::read_link(target.join("var/lib/multusd")).expect("a link"), Path::new("/data/multusd"));
    assert!(
        read("board/buildroot/busybox.fragment").contains("CONFIG_FEATURE_MOUNT_LABEL=y"),
        "or labels are not found"
    );
}

/// The most bytes of the executable that Buildroot makes, for x86_64 and glibc, with the std that comes compiled: what was
/// reached plus 5 %.
const BUDGET: u64 = 1_377_000;

/// What pkg-cargo.mk of Buildroot 2026.08 sets for a release build that is optimised for size, without LTO, before
/// MULTUSD_CARGO_ENV.
fn buildroots_environment(triple: &str) -> Vec<String> {
    let upper = triple.replace('-', "_").to_uppercase();
    let mut words = vec![
        "__CARGO_TEST_CHANNEL_OVERRIDE_DO_NOT_USE_THIS=nightly".into(),
        "CARGO_UNSTABLE_HOST_CONFIG=true".into(),
        "CARGO_UNSTABLE_TARGET_APPLIES_TO_HOST=true".into(),
        "CARGO_TARGET_APPLIES_TO_HOST=false".into(),
        "CARGO_HOST_RUSTFLAGS=".into(),
        format!("CARGO_BUILD_TARGET={triple}"),
        format!("CARGO_TARGET_{upper}_LINKER=gcc"),
    ];
    for (name, value) in [
        ("INCREMENTAL", "false"),
        ("CODEGEN_UNITS", "16"),
        ("SPLIT_DEBUGINFO", "off"),
        ("OPT_LEVEL", "s"),
        ("LTO", "false"),
        ("DEBUG", "0"),
        ("DEBUG_ASSERTIONS", "false"),
        ("OVERFLOW_CHECKS", "false"),
    ] {
        words.push(format!("CARGO_PROFILE_RELEASE_{name}={value}"));
    }
    words
}

#[test]
#[ignore = "compiles everything once more, for minutes: scripts/test does it while guests are waited for"]
fn built_as_buildroot_does_it_runs_and_is_within_its_budget() {
    let version = project("version");
    let tree = folder("replay").join(format!("multusd-{version}"));
    fs::create_dir_all(&tree).expect("a folder");
    // The archive: what git knows, and nothing that was built here.
    let pack = "git ls-files -coz --exclude-standard | tar --null --ignore-failed-read -cf - -T - | tar -xf - -C \"$1\"";
    run(Command::new("sh").args(["-c", pack, "sh"]).arg(&tree).current_dir(root()));

    // support/download/cargo-post-process: the crates, and cargo's configuration replaced by what vendoring says.
    let vendor = "mkdir -p .cargo && cargo vendor --manifest-path Cargo.toml --locked VENDOR >.cargo/config.toml.new && \
                  mv .cargo/config.toml.new .cargo/config.toml";
    run(Command::new("sh").args(["-c", vendor]).current_dir(&tree));
    let config = fs::read_to_string(tree.join(".cargo/config.toml")).expect("vendored");
    assert!(config.contains("directory = \"VENDOR\"") && !config.contains("linker"), "{config}");

    // Buildroot's environment, then ours, which is words of a shell; nothing else of cargo's.
    let rustc = run(Command::new("rustc").arg("-vV"));
    let triple = rustc.lines().find_map(|line| line.strip_prefix("host: ")).expect("the host");
    let name = [&*format!("RUSTC_TARGET_NAME = {triple}")];
    let ours = variable(&name, "MULTUSD_CARGO_ENV");
    let mut build = Command::new("sh");
    build.arg("-c").arg(format!(
        "{} {ours} cargo build --offline --frozen --release --manifest-path Cargo.toml --locked",
        buildroots_environment(triple).join(" ")
    ));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CARGO_") && name != "CARGO_HOME") {
        build.env_remove(name);
    }
    let began = std::time::Instant::now();
    run(build.current_dir(&tree).env_remove("RUSTFLAGS"));

    let made = tree.join("target").join(triple).join("release/multusd");
    let place = variable(&name, "MULTUSD_EXECUTABLE");
    assert!(made.ends_with(Path::new(&place).strip_prefix(root()).expect("below the package")), "{place}");
    let bytes = fs::metadata(&made).expect("the executable").len();
    println!("{bytes} bytes, {} s", began.elapsed().as_secs());
    assert_eq!(run(Command::new(&made).arg("--version")), format!("multusd {version}\n"));
    run(Command::new(&made).arg("--check").arg(tree.join("board/multusd.cfg")));
    assert!(bytes <= BUDGET, "{bytes} bytes are more than {BUDGET}");
    if triple.starts_with("x86_64") {
        assert!(bytes > BUDGET * 3 / 4, "{bytes} bytes: lower the budget, {BUDGET}");
    }
}
