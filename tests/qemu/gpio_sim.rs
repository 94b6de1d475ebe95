//! GPIO chips that exist in the guest's kernel alone (gpio-sim): any number of lines, levels by pulling, edges.

use super::guest::Guest;

/// A chip made by a test.
pub struct SimChip {
    /// As in `gpiochip1`, below /dev.
    pub name: String,
    /// The chip's folder in sysfs, with a `sim_gpioN` for every line.
    folder: String,
}

impl Guest {
    /// Makes a chip of this label and size. The first ever builds the module.
    pub fn sim_chip(&mut self, label: &str, lines: u32) -> SimChip {
        let module = self.gpio_sim_module();
        self.put(module, "/modules/gpio-sim.ko");
        self.ok("cd /sys/kernel\n\
             grep -q ^configfs /proc/modules || insmod /modules/configfs.ko\n\
             grep -q ^gpio_sim /proc/modules || insmod /modules/gpio-sim.ko\n\
             [ -d config/gpio-sim ] || mount -t configfs configfs config");
        let found = self.ok(&format!(
            "cd /sys/kernel/config/gpio-sim\n\
             mkdir -p {label}/bank && cd {label} && echo {lines} >bank/num_lines && echo {label} >bank/label &&\n\
             echo 1 >live && cat dev_name bank/chip_name"
        ));
        let (device, name) = found.split_once('\n').expect("a device and a chip");
        SimChip { name: name.into(), folder: format!("/sys/devices/platform/{device}/{name}") }
    }

    /// The files of a line: what pulls it, and what it is at.
    pub fn sim_files(&self, chip: &SimChip, line: u32) -> [String; 2] {
        ["pull", "value"].map(|file| format!("{}/sim_gpio{line}/{file}", chip.folder))
    }

    /// Pulls a line of the chip up or down: what an input reads, with an edge when it changes.
    pub fn pull(&mut self, chip: &SimChip, line: u32, up: bool) {
        let direction = if up { "pull-up" } else { "pull-down" };
        self.ok(&format!("echo {direction} >{}/sim_gpio{line}/pull", chip.folder));
    }

    /// The level of a line of the chip, whoever makes it.
    pub fn sim_line(&mut self, chip: &SimChip, line: u32) -> bool {
        self.ok(&format!("cat {}/sim_gpio{line}/value", chip.folder)) == "1"
    }
}
