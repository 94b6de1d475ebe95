//! argv[0], or the first argument, says which applet; nothing else happens here.

use std::process::ExitCode;

use multusd::daemon::{self, Options};
use multusd::{applets, ctl, guard};

/// Where the configuration is looked for, in this order: where Raspberry Pi OS mounts the FAT
/// partition, where smaller systems do, where a distribution's package puts it.
const CONFIG_PATHS: [&str; 3] = ["/boot/firmware/multusd.cfg", "/boot/multusd.cfg", "/etc/multusd.cfg"];

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().peekable();
    let called = arguments.next().unwrap_or_default();
    let applet = applets::called(&called).or_else(|| {
        let applet = applets::named(arguments.peek()?)?;
        arguments.next();
        Some(applet)
    });
    if let Some(applet) = applet {
        return ExitCode::from((applet.run)(&mut arguments));
    }
    match ctl::daemon_call(arguments, &CONFIG_PATHS, &applets::described()) {
        ctl::DaemonCall::Run { config, run_dir } => {
            let options = Options { config, run_dir };
            ExitCode::from(guard::run(&|page| daemon::run(page, &options)))
        }
        ctl::DaemonCall::Check(path) => ExitCode::from(daemon::check(&path)),
        ctl::DaemonCall::Applets => {
            print!("{}", applets::links());
            ExitCode::SUCCESS
        }
        ctl::DaemonCall::Print(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        ctl::DaemonCall::Wrong(text) => {
            eprintln!("multusd: {text}");
            ExitCode::from(2)
        }
    }
}
