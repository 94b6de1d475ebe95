//! argv[0], or the first argument, says which applet; nothing else happens here.
#![cfg_attr(not(test), no_main)]

use std::ffi::OsString;

use multusd::daemon::{self, Options};
use multusd::{applets, child, ctl, guard, service};

/// Where the configuration is looked for, in this order: where Raspberry Pi OS mounts the FAT
/// partition, where smaller systems do, where a distribution's package puts it.
const CONFIG_PATHS: [&str; 3] = ["/boot/firmware/multusd.cfg", "/boot/multusd.cfg", "/etc/multusd.cfg"];

multusd::entry!(run);

fn run(arguments: Vec<OsString>) -> u8 {
    let mut arguments = arguments.into_iter().peekable();
    let called = arguments.next().unwrap_or_default();
    let applet = applets::called(&called).or_else(|| {
        let applet = applets::named(arguments.peek()?)?;
        arguments.next();
        Some(applet)
    });
    if let Some(applet) = applet {
        return (applet.run)(&mut arguments);
    }
    if let Some(child) = arguments.peek().and_then(|word| applets::child(word)) {
        return child::run(child, arguments.nth(1).is_some());
    }
    match ctl::daemon_call(arguments, &CONFIG_PATHS, &applets::described()) {
        ctl::DaemonCall::Run { config, run_dir, is_service } => {
            let options = Options { config, run_dir, children: child::CHILDREN };
            let guard = || guard::run(&|page| daemon::run(page, &options));
            if is_service { service::run(&guard) } else { guard() }
        }
        ctl::DaemonCall::ServiceEnded => service::ended(),
        ctl::DaemonCall::Check(path) => daemon::check(&path, child::CHILDREN),
        ctl::DaemonCall::Adopts(layout, config) => daemon::adopts(&layout, &config, child::CHILDREN),
        ctl::DaemonCall::Applets => ctl::print(&applets::links()).unwrap_or(ctl::Exit::Failed) as u8,
        ctl::DaemonCall::Print(text) => ctl::print(&text).unwrap_or(ctl::Exit::Failed) as u8,
        ctl::DaemonCall::Wrong(text) => {
            ctl::complain_as("multusd", &text);
            2
        }
    }
}
