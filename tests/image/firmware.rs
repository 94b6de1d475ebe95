//! What the firmware of a Raspberry Pi loads from a card: `config.txt` read as the firmware reads it, by
//! https://www.raspberrypi.com/documentation/computers/config_txt.html. Pure: files in, names or complaints out.
//! The names of device trees are those that start.elf holds (`strings start.elf`).

use std::collections::BTreeMap;

/// The files of a boot partition, by path without a leading slash. FAT does not tell cases apart.
pub struct Files(BTreeMap<String, Vec<u8>>);

impl Files {
    pub fn new<'a>(files: impl IntoIterator<Item = (&'a str, Vec<u8>)>) -> Files {
        let key = |path: &str| path.trim_start_matches('/').to_ascii_lowercase();
        Files(files.into_iter().map(|(path, bytes)| (key(path), bytes)).collect())
    }

    pub fn get(&self, path: &str) -> Option<&[u8]> {
        self.0.get(&path.trim_start_matches('/').to_ascii_lowercase()).map(Vec::as_slice)
    }

    pub fn remove(&mut self, path: &str) -> Option<Vec<u8>> {
        self.0.remove(path)
    }

    pub fn put(&mut self, path: &str, bytes: impl Into<Vec<u8>>) {
        self.0.insert(path.into(), bytes.into());
    }

    fn text(&self, path: &str) -> Option<String> {
        self.get(path).map(|bytes| String::from_utf8_lossy(bytes).into_owned())
    }
}

/// A model, as far as the firmware makes a difference.
#[derive(Clone, Copy, Debug)]
pub struct Model {
    pub name: &'static str,
    generation: u8,
    /// The conditional filters it passes.
    filters: &'static [&'static str],
    /// Its device tree as Linux names it, and as Raspberry Pi's own kernel does.
    upstream: &'static str,
    downstream: &'static str,
    /// What that tree says it is for.
    compatible: &'static str,
    is_64bit: bool,
}

const fn model(
    name: &'static str,
    generation: u8,
    filters: &'static [&'static str],
    trees: [&'static str; 2],
    compatible: &'static str,
    is_64bit: bool,
) -> Model {
    let [upstream, downstream] = trees;
    Model { name, generation, filters, upstream, downstream, compatible, is_64bit }
}

#[rustfmt::skip]
const MODELS: &[Model] = &[
    model("1 A", 1, &["pi1"], ["bcm2835-rpi-a", "bcm2708-rpi-b"], "raspberrypi,model-a", false),
    model("1 A+", 1, &["pi1"], ["bcm2835-rpi-a-plus", "bcm2708-rpi-b-plus"], "raspberrypi,model-a-plus", false),
    model("1 B", 1, &["pi1"], ["bcm2835-rpi-b", "bcm2708-rpi-b-rev1"], "raspberrypi,model-b", false),
    model("1 B rev 2", 1, &["pi1"], ["bcm2835-rpi-b-rev2", "bcm2708-rpi-b"], "raspberrypi,model-b-rev2", false),
    model("1 B+", 1, &["pi1"], ["bcm2835-rpi-b-plus", "bcm2708-rpi-b-plus"], "raspberrypi,model-b-plus", false),
    model("Zero", 1, &["pi0"], ["bcm2835-rpi-zero", "bcm2708-rpi-zero"], "raspberrypi,model-zero", false),
    model("Zero W", 1, &["pi0", "pi0w"], ["bcm2835-rpi-zero-w", "bcm2708-rpi-zero-w"], "raspberrypi,model-zero-w", false),
    model("2 B", 2, &["pi2"], ["bcm2836-rpi-2-b", "bcm2709-rpi-2-b"], "raspberrypi,2-model-b", false),
    model("3 B", 3, &["pi3"], ["bcm2837-rpi-3-b", "bcm2710-rpi-3-b"], "raspberrypi,3-model-b", true),
    model("3 B+", 3, &["pi3", "pi3+"], ["bcm2837-rpi-3-b-plus", "bcm2710-rpi-3-b-plus"], "raspberrypi,3-model-b-plus", true),
    model("3 A+", 3, &["pi3", "pi3+"], ["bcm2837-rpi-3-a-plus", "bcm2710-rpi-3-a-plus"], "raspberrypi,3-model-a-plus", true),
    model("CM3", 3, &["pi3"], ["bcm2837-rpi-cm3-io3", "bcm2710-rpi-cm3"], "raspberrypi,3-compute-module", true),
    model("Zero 2 W", 3, &["pi0", "pi0w", "pi02"], ["bcm2837-rpi-zero-2-w", "bcm2710-rpi-zero-2-w"], "raspberrypi,model-zero-2-w", true),
    model("4 B", 4, &["pi4"], ["bcm2711-rpi-4-b", "bcm2711-rpi-4-b"], "raspberrypi,4-model-b", true),
    model("400", 4, &["pi4", "pi400"], ["bcm2711-rpi-400", "bcm2711-rpi-400"], "raspberrypi,400", true),
    model("CM4", 4, &["pi4", "cm4"], ["bcm2711-rpi-cm4-io", "bcm2711-rpi-cm4"], "raspberrypi,4-compute-module", true),
    model("5", 5, &["pi5"], ["bcm2712-rpi-5-b", "bcm2712-rpi-5-b"], "raspberrypi,5-model-b", true),
];

/// A model by its name.
pub fn model_named(name: &str) -> Model {
    *MODELS.iter().find(|model| model.name == name).unwrap_or_else(|| panic!("no model {name}"))
}

/// What is loaded.
#[derive(Debug, Default, PartialEq)]
pub struct Resolved {
    pub firmware: Vec<String>,
    pub kernel: String,
    pub is_64bit: bool,
    pub initramfs: Vec<String>,
    pub tree: String,
    pub overlays: Vec<String>,
    /// The words themselves.
    pub cmdline: String,
    /// The pins that `gpio=` lines set, and to what.
    pub gpio: Vec<(u8, String)>,
}

/// Kernels the firmware knows by name: a name of these, given explicitly, decides how wide it is started.
const KNOWN_KERNELS: [(&str, bool); 6] = [
    ("kernel.img", false),
    ("kernel7.img", false),
    ("kernel7l.img", false),
    ("kernel8-32.img", false),
    ("kernel8.img", true),
    ("kernel_2712.img", true),
];
/// What is behind this on a line is not read.
const LINE_MAX: usize = 98;

/// The settings that hold for a model, in order.
fn settings(files: &Files, name: &str, model: &Model, wrong: &mut Vec<String>) -> Vec<(String, String)> {
    let Some(text) = files.text(name) else {
        wrong.push(format!("there is no {name}"));
        return Vec::new();
    };
    let mut all = Vec::new();
    let mut is_ours = true;
    for (number, line) in text.lines().enumerate().map(|(n, line)| (n + 1, line.trim())) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if line.len() > LINE_MAX {
            wrong.push(format!("{name}:{number}: longer than {LINE_MAX} characters"));
        }
        if let Some(filter) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            // Filters of another kind (a monitor, a serial number) are met by nobody here.
            is_ours = filter == "all" || model.filters.contains(&filter);
        } else if !is_ours {
        } else if let Some(file) = line.strip_prefix("include ") {
            all.extend(settings(files, file.trim(), model, wrong));
        } else if let Some(value) = line.strip_prefix("initramfs ") {
            all.push(("initramfs".into(), value.trim().into()));
        } else if let Some((key, value)) = line.split_once('=') {
            all.push((key.trim().into(), value.trim().into()));
        } else {
            wrong.push(format!("{name}:{number}: no setting: {line}"));
        }
    }
    all
}

/// Everything that is loaded on this model; or all that is wrong.
pub fn resolve(files: &Files, model: &Model) -> Result<Resolved, Vec<String>> {
    let mut wrong = Vec::new();
    let settings = settings(files, "config.txt", model, &mut wrong);
    let last = |key: &str| settings.iter().rfind(|(name, _)| name == key).map(|(_, value)| value.as_str());
    let is_set = |key: &str| last(key).is_some_and(|value| value != "0");
    let is_upstream = is_set("upstream_kernel");

    let mut resolved = Resolved { firmware: firmware(model, &last), ..Resolved::default() };
    // One that is named explicitly, and known, decides by its name.
    let explicit = last("kernel");
    let by_name = explicit
        .and_then(|name| KNOWN_KERNELS.iter().find(|(known, _)| *known == name))
        .map(|(_, wide)| *wide);
    let by_setting = last("arm_64bit").map(|value| value != "0");
    if let (Some(name), Some(is_wide)) = (by_name, by_setting)
        && name != is_wide
    {
        wrong.push(format!(
            "kernel={} is one of the other width than arm_64bit says",
            explicit.unwrap_or_default()
        ));
    }
    resolved.is_64bit = model.generation == 5 || by_name.or(by_setting).unwrap_or(model.generation == 4);
    if resolved.is_64bit && !model.is_64bit {
        wrong.push("64 bits are more than this model has".into());
    }
    let kernel = explicit.unwrap_or(default_kernel(model, resolved.is_64bit));

    // What the firmware looks for under a prefix; `upstream/` where nothing is said.
    let candidates = |prefix: &str| -> Vec<String> {
        match last("device_tree") {
            Some(name) => vec![prefixed(prefix, name)],
            None if is_upstream => {
                [model.upstream, model.downstream].map(|tree| format!("{prefix}{tree}.dtb")).into()
            }
            None => vec![format!("{prefix}{}.dtb", model.downstream)],
        }
    };
    let tree = |prefix: &str| candidates(prefix).into_iter().find(|path| files.get(path).is_some());
    let wanted = last("os_prefix").unwrap_or(if is_upstream { "upstream/" } else { "" });
    let is_viable = files.get(&prefixed(wanted, kernel)).is_some() && tree(wanted).is_some();
    let prefix = if is_viable { wanted } else { "" };

    resolved.kernel = prefixed(prefix, kernel);
    match files.get(&resolved.kernel) {
        None => wrong.push(format!("there is no kernel {}", resolved.kernel)),
        Some(bytes) if !is_kernel(bytes, resolved.is_64bit) => {
            wrong.push(format!(
                "{} is no kernel of {} bits",
                resolved.kernel,
                if resolved.is_64bit { 64 } else { 32 }
            ));
        }
        Some(_) => {}
    }
    let overlays = prefixed_overlays(files, prefix, last("overlay_prefix").unwrap_or("overlays/"));
    match tree(prefix) {
        None => wrong.push(format!("there is no device tree {}", candidates(prefix).join(" or "))),
        Some(path) => {
            let bytes = files.get(&path).unwrap_or_default();
            // Its list of names: each ends with a zero.
            let name = format!("{}\0", model.compatible);
            if !bytes.starts_with(b"\xd0\x0d\xfe\xed")
                || !bytes.windows(name.len()).any(|part| part == name.as_bytes())
            {
                wrong.push(format!("{path} is no device tree of a {}", model.compatible));
            }
            if is_upstream
                && last("device_tree").is_none()
                && !path.ends_with(&format!("{}.dtb", model.upstream))
            {
                resolved.overlays.push(format!("{overlays}upstream.dtbo"));
            }
            resolved.tree = path;
        }
    }
    for (_, value) in settings.iter().filter(|(key, value)| key == "dtoverlay" && !value.is_empty()) {
        let name = value.split([',', ':']).next().unwrap_or(value);
        resolved.overlays.push(format!("{overlays}{name}.dtbo"));
    }
    if let Some(value) = last("initramfs").or(last("ramfsfile")) {
        let names = value.split_whitespace().next().unwrap_or_default();
        resolved.initramfs = names.split(',').map(|name| prefixed(prefix, name)).collect();
    }
    let needed = resolved.firmware.iter().chain(&resolved.initramfs).chain(&resolved.overlays);
    wrong.extend(needed.filter(|path| files.get(path).is_none()).map(|path| format!("there is no {path}")));

    let cmdline = prefixed(prefix, last("cmdline").unwrap_or("cmdline.txt"));
    match files.text(&cmdline) {
        None => wrong.push(format!("there is no {cmdline}")),
        // The firmware takes the first line only.
        Some(text) if text.trim_end().lines().count() != 1 => {
            wrong.push(format!("{cmdline} is not one line"))
        }
        Some(text) => resolved.cmdline = text.trim_end().into(),
    }
    for (_, value) in settings.iter().filter(|(key, _)| key == "gpio") {
        match pins(value) {
            Some(more) => resolved.gpio.extend(more),
            None => wrong.push(format!("gpio={value} is not understood")),
        }
    }
    if wrong.is_empty() { Ok(resolved) } else { Err(wrong) }
}

/// A name of a file of the operating system; one that begins with a slash is its own.
fn prefixed(prefix: &str, name: &str) -> String {
    name.strip_prefix('/').map_or_else(|| format!("{prefix}{name}"), String::from)
}

/// Where overlays are: under the prefix only if a README says so.
fn prefixed_overlays(files: &Files, prefix: &str, overlays: &str) -> String {
    let own = format!("{prefix}{overlays}");
    if files.get(&format!("{own}README")).is_some() { own } else { overlays.into() }
}

fn default_kernel(model: &Model, is_64bit: bool) -> &'static str {
    match (model.generation, is_64bit) {
        (_, true) => "kernel8.img",
        (1, false) => "kernel.img",
        (4.., false) => "kernel7l.img",
        (_, false) => "kernel7.img",
    }
}

/// What the boot ROM and the first stage load; from the Pi 5 on it is in flash.
fn firmware<'a>(model: &Model, last: &dyn Fn(&str) -> Option<&'a str>) -> Vec<String> {
    let four = match model.generation {
        1..=3 => "",
        4 => "4",
        _ => return Vec::new(),
    };
    let is_set = |key: &str| last(key).is_some_and(|value| value != "0");
    let variant = match () {
        () if last("gpu_mem") == Some("16") => "cd",
        () if is_set("start_x") => "x",
        () if is_set("start_debug") => "db",
        () => "",
    };
    let line = if four.is_empty() && !variant.is_empty() { "_" } else { "" };
    let file = |key: &str, name: &str, end: &str| {
        last(key).map_or_else(|| format!("{name}{four}{line}{variant}{end}"), String::from)
    };
    let mut all = vec![file("start_file", "start", ".elf"), file("fixup_file", "fixup", ".dat")];
    // The Pi 4's first stage is in flash, too.
    if four.is_empty() {
        all.insert(0, "bootcode.bin".into());
    }
    all
}

/// By the magic numbers of Documentation/arch/arm64/booting.rst and arch/arm/boot/compressed/head.S; what is
/// packed is looked at by the firmware itself.
fn is_kernel(bytes: &[u8], is_64bit: bool) -> bool {
    if is_64bit {
        bytes.get(0x38..0x3c) == Some(b"ARMd") || bytes.starts_with(&[0x1f, 0x8b])
    } else {
        bytes.get(0x24..0x28) == Some(&0x016f_2818u32.to_le_bytes())
    }
}

/// `17=op,dl`, `3-4,6=ip`: each pin and what it becomes.
fn pins(value: &str) -> Option<Vec<(u8, String)>> {
    let (pins, attributes) = value.split_once('=')?;
    let known = ["ip", "op", "a0", "a1", "a2", "a3", "a4", "a5", "dh", "dl", "pu", "pd", "pn", "np"];
    if !attributes.split(',').all(|word| known.contains(&word)) {
        return None;
    }
    let mut all = Vec::new();
    for part in pins.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<u8>().ok()?, last.parse::<u8>().ok()?);
        if first > last || last > 57 {
            return None;
        }
        all.extend((first..=last).map(|pin| (pin, attributes.to_string())));
    }
    Some(all)
}
