//! What the Debian package and the release archives are made from: that it agrees with the sources and with systemd. Builds
//! no package and wants neither root nor the network: `make test-debian` and `make artefacts` do that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn text(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands behind `key` in lines of the file, in their order.
fn values<'a>(text: &'a str, key: &str) -> Vec<&'a str> {
    text.lines().filter_map(|line| line.strip_prefix(key)).map(str::trim).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A folder of this test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("multusd-packaging-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

#[test]
fn systemd_has_nothing_to_say_against_the_unit() {
    let folder = Folder::new("unit");
    let verify = |unit: &str| {
        let path = folder.0.join("multusd.service");
        fs::write(&path, unit).unwrap();
        let output = Command::new("systemd-analyze").args(["verify", "--man=no"]).arg(&path).output();
        output.expect("systemd-analyze, from Debian's systemd")
    };
    // It looks for the executable, which no package has installed here.
    let unit = text("packaging/init/multusd.service");
    let here = unit.replace("/usr/sbin/multusd ", concat!(env!("CARGO_BIN_EXE_multusd"), " "));
    let output = verify(&here);
    // Debian 12's does not know that key, and the unit does without it there: see its comment.
    let left = |output: &Output| -> Vec<String> {
        let is_known =
            |line: &&str| !line.ends_with("Unknown key 'DelegateSubgroup' in section [Service], ignoring.");
        said(output).lines().filter(is_known).map(String::from).collect()
    };
    assert!(output.status.success() && left(&output).is_empty(), "{}", said(&output));
    let output = verify(&here.replace("WatchdogSec=", "WatchdogSek="));
    assert!(said(&output).contains("WatchdogSek"), "it would not have noticed: {}", said(&output));
}

#[test]
fn the_unit_starts_what_the_package_installs() {
    let (unit, rules) = (text("packaging/init/multusd.service"), text("debian/rules"));
    for (key, line) in [
        ("ExecStart=", "install -D -m 755 '$(made)/multusd' $(into)"),
        ("EnvironmentFile=-", "install -D -m 644 packaging/init/multusd.default $(into)"),
    ] {
        let installed = values(&rules, &format!("\t{line}"));
        let [named] = values(&unit, key)[..] else { panic!("{key}: not exactly one") };
        assert_eq!(installed, [named.split(' ').next().unwrap()], "{key}");
    }
    assert!(text("packaging/init/multusd.default").contains("\nMULTUSD_ARGS="), "what ExecStart adds");
    assert!(values(&unit, "ExecStart=")[0].ends_with(" $MULTUSD_ARGS"));
}

#[test]
fn the_unit_is_started_exactly_where_multusd_would_find_a_configuration() {
    let main = text("src/main.rs");
    let paths = main.split_once("const CONFIG_PATHS").unwrap().1.split_once('=').unwrap().1;
    let mut wanted: Vec<&str> = paths.split_once(';').unwrap().0.split('"').skip(1).step_by(2).collect();
    // What it falls back to, in the folder of a configuration that says nothing of it.
    wanted.push("/var/lib/multusd/last-good.cfg");
    assert_eq!(values(&text("packaging/init/multusd.service"), "ConditionPathExists=|"), wanted);
}

#[test]
fn the_package_has_the_version_and_the_address_of_cargo_toml() {
    let changelog = text("debian/changelog");
    let newest = changelog.lines().next().unwrap();
    assert!(newest.starts_with(concat!("multusd (", env!("CARGO_PKG_VERSION"), "-")), "{newest}");
    let manual = text("docs/packages.md");
    assert!(manual.contains(concat!("install ./multusd_", env!("CARGO_PKG_VERSION"), "-1_arm64.deb")));
    assert!(manual.contains(concat!("-xzf multusd-", env!("CARGO_PKG_VERSION"), "-aarch64.tar.gz")));
    let url = env!("CARGO_PKG_REPOSITORY");
    assert!(manual.contains(&format!("git clone {url} ")));
    let control = text("debian/control");
    assert_eq!(values(&control, "Homepage:"), [url]);
    assert_eq!(values(&control, "Vcs-Browser:"), [url]);
    assert_eq!(values(&control, "Vcs-Git:"), [format!("{url}.git")]);
    assert_eq!(values(&text("debian/copyright"), "Source:"), [url]);
    let unit = text("packaging/init/multusd.service");
    assert!(values(&unit, "Documentation=")[0].split(' ').any(|word| word == url));
}

#[test]
fn each_architecture_has_its_executable_and_armhf_the_one_that_a_pi_zero_runs() {
    let wanted = [("amd64", "x86_64"), ("arm64", "aarch64"), ("armhf", "armv6")];
    let (rules, script) = (text("debian/rules"), text("packaging/deb"));
    assert_eq!(values(&text("debian/control"), "Architecture:"), ["amd64 arm64 armhf"]);
    for (architecture, machine) in wanted {
        assert_eq!(values(&rules, &format!("machine_{architecture} :=")), [machine]);
        assert!(script.contains(&format!("[{architecture}]={machine}")), "packaging/deb: {architecture}");
        assert!(
            text("release/targets.sh").contains(&format!("\n\t{machine})")),
            "release/targets.sh: {machine}"
        );
    }
}

#[test]
fn the_configuration_of_the_first_steps_has_no_error_and_no_warning_but_the_one_that_is_explained() {
    let manual = text("docs/packages.md");
    let (_, rest) = manual.split_once("<<'END'\n").unwrap();
    let lines = rest.split_once(" END\n").unwrap().0.lines().map(|line| line.trim_start().to_owned() + "\n");
    let folder = Folder::new("steps");
    let path = folder.0.join("multusd.cfg");
    fs::write(&path, lines.collect::<String>()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_multusd")).arg("--check").arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
    // The manual speaks of the watchdog; that this machine has no pins is no fault of it.
    let expected = ["a section [watchdog] would be right", "no chip of a Raspberry Pi's header is here"];
    let said = said(&output);
    let is_other = |line: &&str| line.contains("warning") && !expected.iter().any(|end| line.ends_with(end));
    assert_eq!(said.lines().find(is_other), None);
}

#[test]
fn what_the_package_takes_from_the_tree_is_there() {
    for list in ["docs", "examples", "manpages"] {
        for path in text(&format!("debian/multusd.{list}")).lines() {
            let path = path.strip_suffix("*.md").unwrap_or(path);
            assert!(root().join(path).exists(), "debian/multusd.{list}: {path}");
        }
    }
    let manuals = text("debian/multusd.manpages");
    for entry in fs::read_dir(root().join("man")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(
            manuals.lines().any(|line| line == format!("man/{name}")),
            "man/{name} is not in the package"
        );
    }
}

#[test]
fn the_notices_are_those_of_what_cargo_lock_has() {
    let output = Command::new(root().join("packaging/third-party")).arg("--check").output().unwrap();
    assert!(output.status.success(), "{}", said(&output));
}

#[test]
fn the_bill_of_materials_names_what_is_in_the_executable_by_hash_and_nothing_else_as_required() {
    let lock = text("Cargo.lock");
    let bill = |zone: &str, language: &str| {
        let output = Command::new(root().join("packaging/sbom"))
            .args(["aarch64", env!("CARGO_BIN_EXE_multusd")])
            .env("SOURCE_DATE_EPOCH", "1000000000")
            .envs([("TZ", zone), ("LC_ALL", language)])
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", said(&output));
        String::from_utf8(output.stdout).unwrap()
    };
    let made = bill("UTC", "C");
    assert_eq!(made, bill("Pacific/Chatham", "C.UTF-8"), "it depends on who makes it");
    assert!(made.contains("\"timestamp\": \"2001-09-09T01:46:40Z\""), "another time");
    // The way a crate is written in Cargo.lock: name, version, source, checksum.
    let field = |block: &str, key: &str| {
        let line = values(block, &format!("{key} = "));
        line.first().map(|value| value.trim_matches('"').to_owned())
    };
    let find = |name: &str| {
        let block =
            lock.split("[[package]]").find(|block| field(block, "name").as_deref() == Some(name)).unwrap();
        (field(block, "version").unwrap(), field(block, "checksum").unwrap())
    };
    // How the bill writes one, with what is in it.
    let component = |name: &str| {
        let purl = format!("\"bom-ref\": \"pkg:cargo/{name}@{}\"", find(name).0);
        made.split("\n  {\n").find(|part| part.contains(&purl)).map(str::to_owned)
    };
    for name in ["nix", "libc", "chacha20poly1305"] {
        let part = component(name).unwrap_or_else(|| panic!("{name} is not there"));
        assert!(part.contains(&find(name).1), "{name}: its hash is not there: {part}");
        assert!(part.contains("\"scope\": \"required\""), "{name}: {part}");
    }
    let macros = component("serde_derive").expect("what runs in the compiler");
    assert!(macros.contains("\"scope\": \"excluded\""), "{macros}");
    assert_eq!(component("proptest"), None, "only tests have it");
    assert!(
        made.contains("pkg:generic/musl@") && made.contains("pkg:generic/rust-std@"),
        "the C library, and std"
    );
}
