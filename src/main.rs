//! argv[0], or the first argument, says which applet; nothing else happens here.

use std::ffi::OsStr;
use std::path::Path;
use std::process::ExitCode;

use multusd::daemon::{self, Options};
use multusd::{ctl, guard};

/// Where the configuration is looked for, in this order: where Raspberry Pi OS mounts the FAT
/// partition, where smaller systems do, where a distribution's package puts it.
const CONFIG_PATHS: [&str; 3] = ["/boot/firmware/multusd.cfg", "/boot/multusd.cfg", "/etc/multusd.cfg"];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().peekable();
    let called = arguments.next().unwrap_or_default();
    let applet = OsStr::new("multusctl");
    if Path::new(&called).file_name() == Some(applet) || arguments.next_if(|first| first == applet).is_some()
    {
        return ExitCode::from(ctl::main(arguments, daemon::check));
    }
    match ctl::daemon_call(arguments, &CONFIG_PATHS) {
        ctl::DaemonCall::Run { config, run_dir } => {
            let options = Options { config, run_dir };
            ExitCode::from(guard::run(&|page| daemon::run(page, &options)))
        }
        ctl::DaemonCall::Check(path) => ExitCode::from(daemon::check(&path)),
        ctl::DaemonCall::Print(text) => ExitCode::from(ctl::print(&text).unwrap_or(ctl::Exit::Failed) as u8),
        ctl::DaemonCall::Wrong(text) => {
            ctl::complain_as("multusd", &text);
            ExitCode::from(2)
        }
    }
}
