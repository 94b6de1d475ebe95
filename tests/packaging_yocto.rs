//! The Yocto layer in meta-multusd, held to what it is written after: Cargo.toml, Cargo.lock, the licences, the files of the source
//! that it installs. Reads text and needs no checkout of others; what does is `packaging/test-yocto`.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const RECIPES: &str = "meta-multusd/recipes-core/multusd";

fn read(path: &str) -> String {
    fs::read_to_string(Path::new(ROOT).join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn table(path: &str) -> toml::Table {
    read(path).parse().unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// A key of `[package]` in Cargo.toml.
fn package(key: &str) -> String {
    table("Cargo.toml")["package"][key].as_str().unwrap_or_else(|| panic!("{key}")).to_string()
}

/// The recipe with this name, of this version.
fn recipe(name: &str) -> String {
    read(&format!("{RECIPES}/{name}_{}.bb", package("version")))
}

/// What is between the quotes of `NAME = "…"`, lines joined.
fn variable(text: &str, name: &str) -> String {
    let joined = text.replace("\\\n", " ");
    let line = joined
        .lines()
        .find(|line| line.split_whitespace().next() == Some(name))
        .unwrap_or_else(|| panic!("no {name} in {text}"));
    let quoted = line.split_once('"').expect("a quote").1;
    quoted.rsplit_once('"').expect("a second quote").0.to_string()
}

/// Every file of the layer.
fn layer() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![PathBuf::from(ROOT).join("meta-multusd")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(ROOT).unwrap().display().to_string();
                found.push((name, fs::read_to_string(&path).unwrap()));
            }
        }
    }
    assert!(found.len() > 10, "{found:?}");
    found
}

/// The crates of a registry in Cargo.lock: "name-version", and their checksums.
fn locked() -> BTreeMap<String, String> {
    let lock = table("Cargo.lock");
    let packages = lock["package"].as_array().unwrap();
    let crates: BTreeMap<_, _> = packages
        .iter()
        .filter_map(|one| {
            let source = one.get("source")?.as_str()?;
            assert_eq!(source, "registry+https://github.com/rust-lang/crates.io-index");
            let text = |key: &str| one[key].as_str().unwrap().to_string();
            Some((format!("{}-{}", text("name"), text("version")), text("checksum")))
        })
        .collect();
    assert!(crates.len() > 20, "{crates:?}");
    crates
}

#[test]
fn the_list_of_crates_and_their_checksums_are_those_of_cargo_lock() {
    let list = read(&format!("{RECIPES}/multusd-crates.inc"));
    let fetched: BTreeSet<String> = variable(&list, "SRC_URI")
        .split_whitespace()
        .map(|uri| uri.strip_prefix("crate://crates.io/").expect(uri).replace('/', "-"))
        .collect();
    let sums: BTreeMap<String, String> = list
        .lines()
        .filter_map(|line| line.strip_prefix("SRC_URI[")?.split_once(".sha256sum] = \""))
        .map(|(name, sum)| (name.to_string(), sum.trim_end_matches('"').to_string()))
        .collect();
    assert_eq!(sums, locked(), "run packaging/crates");
    assert_eq!(fetched, sums.keys().cloned().collect(), "run packaging/crates");
}

/// `packaging/crates` in a folder of its own, with a copy of what it reads.
fn crates_script(test: &str, arguments: &[&str]) -> (bool, PathBuf) {
    let here = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("yocto-{test}"));
    let _ = fs::remove_dir_all(&here);
    fs::create_dir_all(here.join("packaging")).unwrap();
    fs::create_dir_all(here.join(RECIPES)).unwrap();
    for file in ["packaging/crates", "Cargo.lock", "Cargo.toml"] {
        fs::copy(Path::new(ROOT).join(file), here.join(file)).unwrap();
    }
    let lines: String = ["aarch64", "armv7", "armv6", "x86_64"]
        .iter()
        .zip('a'..)
        .map(|(machine, digit)| {
            let sum = digit.to_string().repeat(64);
            format!("{sum}  multusd-{}-{machine}.tar.gz\n", package("version"))
        })
        .collect();
    fs::write(here.join("SHA256SUMS"), &lines).unwrap();
    fs::write(here.join("SHORT"), lines.split_once('\n').unwrap().1).unwrap();
    let done = Command::new(here.join("packaging/crates")).args(arguments).current_dir(&here).output();
    (done.unwrap().status.success(), here.join(RECIPES))
}

#[test]
fn packaging_crates_writes_the_list_that_is_here() {
    let (succeeded, recipes) = crates_script("list", &[]);
    assert!(succeeded);
    let written = fs::read_to_string(recipes.join("multusd-crates.inc")).unwrap();
    assert_eq!(written, read(&format!("{RECIPES}/multusd-crates.inc")));
}

#[test]
fn a_release_is_written_whole_or_not_at_all() {
    let revision = "0123456789abcdef0123456789abcdef01234567";
    let file = "multusd-release.inc";
    let (succeeded, recipes) = crates_script("release", &["--release", revision, "SHA256SUMS"]);
    assert!(succeeded);
    let written = fs::read_to_string(recipes.join(file)).unwrap();
    assert_eq!(variable(&written, "MULTUSD_REVISION"), revision);
    for (machine, digit) in ["aarch64", "armv7", "armv6", "x86_64"].iter().zip('a'..) {
        assert_eq!(
            variable(&written, &format!("SRC_URI[{machine}.sha256sum]")),
            digit.to_string().repeat(64)
        );
    }
    for (test, wrong) in [("short", [revision, "SHORT"]), ("branch", ["main", "SHA256SUMS"])] {
        let (succeeded, recipes) = crates_script(test, &["--release", wrong[0], wrong[1]]);
        assert!(!succeeded && !recipes.join(file).exists(), "{wrong:?}");
    }
}

#[test]
fn the_release_that_is_named_has_a_commit_and_four_checksums_or_none() {
    let release = read(&format!("{RECIPES}/multusd-release.inc"));
    let revision = variable(&release, "MULTUSD_REVISION");
    let sums = release.lines().filter(|line| line.starts_with("SRC_URI[")).count();
    assert_eq!((revision.len(), sums), if revision.is_empty() { (0, 0) } else { (40, 4) });
}

#[test]
fn version_address_and_oldest_compiler_are_those_of_cargo_toml() {
    let common = read(&format!("{RECIPES}/multusd.inc"));
    let address = package("repository");
    assert_eq!(variable(&common, "HOMEPAGE"), address);
    assert_eq!(variable(&read("meta-multusd/conf/layer.conf"), "MULTUSD_RUST"), package("rust-version"));
    let bare = address.strip_prefix("https://").unwrap();
    assert!(recipe("multusd").contains(&format!("git://{bare}.git;protocol=https;")));
    assert!(recipe("multusd-bin").contains(&format!("\"{address}/releases/download/v${{PV}}\"")));
    for (name, text) in layer() {
        for rest in text.split("github.com").skip(1).map(|rest| &rest[1..]) {
            let name_of = |text: &str| text.split('/').nth(1).unwrap_or_default().to_string();
            if name_of(rest).starts_with("multusd") {
                let path = bare.split_once('/').unwrap().1;
                assert!(rest.starts_with(path), "{name}: another address than {address}: {rest:.60}");
            }
        }
    }
    // A recipe of another version is one that was left over.
    for entry in fs::read_dir(Path::new(ROOT).join(RECIPES)).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some((_, version)) = name.split_once('_') {
            assert_eq!(version, format!("{}.bb", package("version")), "{name}");
        }
    }
}

#[test]
fn the_series_with_long_support_are_named() {
    assert_eq!(
        variable(&read("meta-multusd/conf/layer.conf"), "LAYERSERIES_COMPAT_multusd"),
        "scarthgap wrynose"
    );
}

/// What yocto-check-layer looks for, which takes it a quarter of an hour to get to.
#[test]
fn the_layer_says_who_maintains_it_where_patches_go_and_how_weaknesses_are_reported() {
    let readme = read("meta-multusd/README.md");
    for word in ["Maintainer", "patches", "git@github.com:"] {
        assert!(readme.contains(word), "{word}");
    }
    assert!(!readme.contains("README"), "a layer that sends its reader elsewhere is not looked at");
    assert!(read("meta-multusd/SECURITY.md").contains(&package("repository")));
}

#[test]
fn the_licences_are_the_files_that_are_here() {
    let checked = variable(&read(&format!("{RECIPES}/multusd.inc")), "LIC_FILES_CHKSUM");
    let mut names = BTreeSet::new();
    for one in checked.split_whitespace() {
        let (name, sum) = one.strip_prefix("file://").unwrap().split_once(";md5=").unwrap();
        let said = Command::new("md5sum").arg(Path::new(ROOT).join(name)).output().expect("md5sum");
        assert_eq!(String::from_utf8_lossy(&said.stdout).split(' ').next(), Some(sum), "{name}");
        names.insert(name.to_string());
    }
    assert_eq!(names, BTreeSet::from(["LICENSE-APACHE".to_string(), "LICENSE-MIT".to_string()]));
    assert_eq!(
        variable(&read(&format!("{RECIPES}/multusd.inc")), "LICENSE"),
        package("license").replace(" OR ", " | ")
    );
}

/// Paths that begin with `start` in this text, up to the first character that is not of a path.
fn paths<'a>(text: &'a str, start: &'a str) -> impl Iterator<Item = String> + 'a {
    text.match_indices(start).map(move |(at, _)| {
        let rest = &text[at + start.len()..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_-./*[]".contains(c)));
        rest[..end.unwrap_or(rest.len())].to_string()
    })
}

#[test]
fn what_the_recipes_install_is_in_the_source() {
    let source = recipe("multusd");
    let mut files: Vec<String> = paths(&source, "${S}/").collect();
    let init = variable(&source, "MULTUSD_INIT").replace("${S}/", "");
    let common = read(&format!("{RECIPES}/multusd.inc"));
    files.extend(paths(&common, "${MULTUSD_INIT}/").map(|file| format!("{init}/{file}")));
    assert!(files.len() >= 8, "{files:?}");
    let missing: Vec<_> = files
        .iter()
        .filter(|file| match file.split_once("*.[1-8]") {
            Some((folder, _)) => !["1", "5", "8"].iter().all(|section| {
                fs::read_dir(Path::new(ROOT).join(folder)).is_ok_and(|mut found| {
                    found.any(|one| one.unwrap().path().extension() == Some(section.as_ref()))
                })
            }),
            None => !Path::new(ROOT).join(file).exists(),
        })
        .collect();
    assert!(missing.is_empty(), "the recipes install what is not there: {missing:?}");
}

#[test]
fn what_the_layer_refers_to_in_itself_is_there() {
    let mut seen = 0;
    for (name, text) in layer() {
        let folder = Path::new(ROOT).join(&name);
        let folder = folder.parent().unwrap();
        for line in text.lines().filter(|_| name.ends_with(".bb") || name.ends_with(".inc")) {
            let required = line.strip_prefix("require ").map(|file| folder.join(file));
            let listed = line.contains("SRC_URI").then(|| paths(line, "\"file://").next()).flatten();
            let card =
                paths(line, "'multusd-sdcard").map(|rest| folder.join(format!("multusd-sdcard{rest}")));
            for path in
                required.into_iter().chain(listed.map(|file| folder.join("files").join(file))).chain(card)
            {
                assert!(path.exists(), "{name}: {}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 7, "{seen}");
}

#[test]
fn the_links_to_the_executable_are_those_of_a_release() {
    let links = variable(&read(&format!("{RECIPES}/multusd.inc")), "MULTUSD_APPLETS");
    assert_eq!(links.split(' ').collect::<Vec<_>>(), read("release/applets").lines().collect::<Vec<_>>());
}

#[test]
fn nothing_of_cargos_configuration_here_is_missing_in_the_recipe() {
    let source = recipe("multusd");
    let mut flags = BTreeSet::new();
    for (target, keys) in table(".cargo/config.toml")["target"].as_table().unwrap() {
        for (key, value) in keys.as_table().unwrap() {
            match key.as_str() {
                // The series' own linker.
                "linker" => {}
                "rustflags" => {
                    assert!(target.starts_with("arm") && target.contains("musl"), "{target}");
                    let words: Vec<_> =
                        value.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
                    flags.insert(format!(" {}", words.join(" ")));
                }
                _ => panic!("{target} has {key}, of which the recipe knows nothing"),
            }
        }
    }
    assert_eq!(table(".cargo/config.toml").len(), 1, "more than targets");
    assert_eq!(flags, BTreeSet::from([variable(&source, "RUSTFLAGS:append:libc-musl:arm")]));
    // Else OpenEmbedded finds it stripped already; all else of the profile is that of Cargo.toml.
    assert_eq!(source.matches("CARGO_PROFILE").count(), 1);
    assert_eq!(variable(&source, "RUSTFLAGS:append:libc-musl"), " -C target-feature=+crt-static");
}

#[test]
fn the_prebuilt_recipe_knows_the_machines_of_a_release_and_no_others() {
    let release = read("release/targets.sh");
    let line = release.lines().find_map(|line| line.strip_prefix("targets='")).unwrap();
    let function = recipe("multusd-bin");
    let function =
        function.split_once("def multusd_machine").unwrap().1.split_once("MULTUSD_MACHINE").unwrap().0;
    let quoted: BTreeSet<&str> = function.split('\'').skip(1).step_by(2).collect();
    for machine in line.trim_end_matches('\'').split(' ') {
        assert!(quoted.contains(machine), "{machine}: {quoted:?}");
    }
    let others: Vec<_> = quoted
        .iter()
        .filter(|word| !line.contains(**word) && !["armv7a", "armv7ve", "armv8a"].contains(word))
        .filter(|word| {
            !["TARGET_ARCH", "TUNE_FEATURES", "MACHINEOVERRIDES", "arm", "vfp", ":", ""].contains(word)
        })
        .collect();
    assert!(others.is_empty(), "{others:?}");
}

#[test]
fn no_file_of_the_project_is_a_copy_of_another() {
    let listed = Command::new("git").args(["-C", ROOT, "ls-files", "--stage"]).output().expect("git");
    let listed = String::from_utf8(listed.stdout).unwrap();
    let mut names: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for line in listed.lines() {
        let (entry, path) = line.split_once('\t').unwrap();
        names.entry(entry.split(' ').nth(1).unwrap()).or_default().push(path);
    }
    assert!(names.values().any(|paths| *paths == ["board/multusd.cfg"]), "{listed}");
    let copies: Vec<_> = names.values().filter(|paths| paths.len() > 1).collect();
    assert!(copies.is_empty(), "{copies:?}");
}

#[test]
fn the_recipes_ptest_says_what_the_self_test_says() {
    let multusd = Path::new(env!("CARGO_BIN_EXE_multusd"));
    let path = format!("{}:{}", multusd.parent().unwrap().display(), std::env::var("PATH").unwrap());
    let script = Path::new(ROOT).join(RECIPES).join("files/run-ptest");
    let run = Command::new("sh").arg(script).env("PATH", path).current_dir("/").output().unwrap();
    let itself = Command::new(multusd).arg("self-test").output().unwrap();
    assert_eq!(run.status.code(), itself.status.code());
    let said = String::from_utf8(run.stdout).unwrap();
    let count = |word: &str| said.lines().filter(|line| line.starts_with(word)).count();
    let summary = format!("{} ok, {} failed", count("PASS: "), count("FAIL: "));
    let itself = String::from_utf8(itself.stdout).unwrap();
    assert!(itself.contains(&summary), "{summary}: {itself}");
    assert!(count("PASS: ") > 10 && said.lines().count() == itself.lines().count() - 1, "{said}{itself}");
}

#[test]
fn oelint_adv_finds_nothing_in_the_recipes() {
    let said = Command::new(Path::new(ROOT).join("packaging/lint-yocto")).output().unwrap();
    let text = String::from_utf8_lossy(&[said.stdout, said.stderr].concat()).into_owned();
    assert!(said.status.success() && text.contains("wrynose"), "{text}");
}
