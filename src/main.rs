//! argv[0], or the first argument, says which applet; nothing else happens here.
#![cfg_attr(not(test), no_main)]

use std::ffi::{OsStr, OsString};
use std::path::Path;

use multusd::daemon::{self, Options};
use multusd::{ctl, guard};

/// Where the configuration is looked for, in this order: where Raspberry Pi OS mounts the FAT
/// partition, where smaller systems do, where a distribution's package puts it.
const CONFIG_PATHS: [&str; 3] = ["/boot/firmware/multusd.cfg", "/boot/multusd.cfg", "/etc/multusd.cfg"];

multusd::entry!(run);

fn run(arguments: Vec<OsString>) -> u8 {
    let mut arguments = arguments.into_iter().peekable();
    let called = arguments.next().unwrap_or_default();
    let applet = OsStr::new("multusctl");
    if Path::new(&called).file_name() == Some(applet) || arguments.next_if(|first| first == applet).is_some()
    {
        return ctl::main(arguments, daemon::check);
    }
    match ctl::daemon_call(arguments, &CONFIG_PATHS) {
        ctl::DaemonCall::Run { config, run_dir } => {
            let options = Options { config, run_dir };
            guard::run(&|page| daemon::run(page, &options))
        }
        ctl::DaemonCall::Check(path) => daemon::check(&path),
        ctl::DaemonCall::Print(text) => ctl::print(&text).unwrap_or(ctl::Exit::Failed) as u8,
        ctl::DaemonCall::Wrong(text) => {
            ctl::complain_as("multusd", &text);
            2
        }
    }
}
