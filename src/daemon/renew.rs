//! Another version of multusd without an end of anything: guard and supervisor go on as the executable that is on storage now. A job
//! reads it into memory and tries whether it runs here and knows all that this one leaves; then the supervisor ends as if it were
//! killed, the guard executes the image (its process, children and descriptors stay what they are), and starts a supervisor, which
//! is a successor like any other. What is refused, or fails, leaves everything as it was.

use std::ffi::{CStr, CString};
use std::sync::atomic::Ordering::SeqCst;

use crate::config::Children;
use crate::limits::CHILD_COUNT_MAX;
use crate::protocol::{Refusal, Reply};
use crate::supervisor::ChildId;
use crate::sys::page::{Keep, Page, request};
use crate::sys::{SysError, file, image, poll, process};

use super::Daemon;
use super::control::{done, refused};
use super::jobs::Job;
use super::reload::understand;

/// Exit codes of an image that is tried (`multusd --adopts`): it takes over; it does not know what this version leaves. No other
/// program ends with these when it is asked what it does not understand.
const ADOPTS: i32 = 0x6d;
const IS_ANOTHER: i32 = 0x6e;
/// Results of the job, beside 0 and [`IS_ANOTHER`].
const CANNOT_BE_READ: i32 = 1;
const DOES_NOT_RUN: i32 = 2;

/// Whether this executable can go on with what one of this layout has begun, whose configuration in force is open under this
/// number: [`ADOPTS`], or [`IS_ANOTHER`].
pub fn adopts(layout: &str, config: &str, children: Children) -> u8 {
    let knows = || {
        (layout == Page::layout()).then_some(())?;
        let bytes = file::read_memory(poll::borrow(config.parse().ok()?)).ok()?;
        // Understood is what comes out as it went in.
        let (mut prepared, _) = understand(&bytes, children)?;
        (prepared.packed() == bytes).then_some(())
    };
    if knows().is_some() { ADOPTS as u8 } else { IS_ANOTHER as u8 }
}

/// Who asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asker {
    /// A client, which waits for the outcome.
    Client(usize),
    /// Whoever sent SIGUSR2.
    Signal,
}

impl Daemon {
    /// SIGUSR2: whatever is new on storage, executable and configuration, as if multusd were started again.
    pub(super) fn renew_asked_by_signal(&mut self) {
        // Whoever started multusd has taken the controllers away, maybe: see `cgroup::make_enterable`.
        if let Some(hierarchy) = &mut self.hierarchy {
            hierarchy.enable_controllers();
            (0..CHILD_COUNT_MAX as u16).for_each(|index| self.limit_group(ChildId(index)));
        }
        if let Some(reply) = self.start_renewal(Asker::Signal) {
            self.tell_outcome(Asker::Signal, reply);
        }
    }

    /// What was new has been taken over, or cannot be: the guard says that multusd is ready.
    pub(super) fn end_takeover(&self) {
        let is_over = self.renewing.is_none()
            && self.reload.loading.is_none()
            && self.page.renew.load(SeqCst) == 0
            && self.page.requests.load(SeqCst) & (request::RELOAD | request::RENEW) == 0;
        if is_over && self.page.taking_over.swap(0, SeqCst) != 0 {
            // Nothing but a reason to look.
            process::kill_if_there(self.page.guard.load(SeqCst) as i32, libc::SIGALRM);
        }
    }

    fn tell_outcome(&mut self, asker: Asker, mut reply: Reply) {
        match (asker, &reply) {
            (Asker::Client(client), _) => self.send(client, &mut reply),
            (Asker::Signal, Reply::Refused { text, .. }) => {
                self.say_limitation(format_args!("not renewed: {text}"));
                self.reload_asked_by_signal();
            }
            // The successor reads the file, because of `taking_over`.
            (Asker::Signal, _) => {}
        }
    }

    /// `None`: the reply follows when the job is done.
    pub(super) fn start_renewal(&mut self, asker: Asker) -> Option<Reply> {
        let failed = |words| Some(refused(Refusal::Failed, words));
        if self.end.is_coming(self.page) {
            return failed(format_args!("everything is being stopped"));
        }
        if self.renewing.is_some() {
            return failed(format_args!("multusd is being renewed; try again"));
        }
        if image::origin().is_none() {
            return failed(format_args!(
                "multusd runs from storage and not from memory: end it and start it again"
            ));
        }
        match self.try_in_job() {
            Ok(()) => {
                self.renewing = Some(asker);
                None
            }
            Err(error) => failed(format_args!("{error}")),
        }
    }

    fn try_in_job(&mut self) -> Result<(), SysError> {
        self.page.keep(Keep::Image, Some(image::empty()?));
        let [Some(memory), Some(config)] = [Keep::Image, Keep::Config].map(|which| self.page.kept(which))
        else {
            return Err(SysError { operation: "memfd_create", errno: libc::EBADF });
        };
        let slot = self.page.job(Job::Renew as usize);
        if slot.is_alive() {
            // A former supervisor's, or for a client that is gone: nobody is left to take what it makes.
            process::kill_if_there(slot.spawned() as i32, libc::SIGKILL);
        }
        slot.flags.store(0, SeqCst);
        process::spawn_job(slot, 1, || {
            let texts =
                [Page::layout(), config.to_string()].map(|text| CString::new(text).unwrap_or_default());
            let words: [&CStr; 4] = [c"multusd", c"--adopts", &texts[0], &texts[1]];
            match image::fill(poll::borrow(memory), &words, ADOPTS, poll::borrow(config)) {
                Ok(ADOPTS) => 0,
                Ok(IS_ANOTHER) => IS_ANOTHER,
                Ok(_) => DOES_NOT_RUN,
                Err(error) => {
                    slot.answer.store(error.errno as u64, SeqCst);
                    CANNOT_BE_READ
                }
            }
        })
        .map(drop)
    }

    pub(super) fn finish_renewal(&mut self, code: i32) {
        let asker = self.renewing.take();
        let path = image::origin().unwrap_or_default();
        let path = path.to_string_lossy();
        let failed = |words| refused(Refusal::Failed, words);
        let reply = match code {
            // Whoever asked is gone.
            0 if asker.is_none() => failed(format_args!("")),
            0 => done(format_args!("renewed from {path}")),
            CANNOT_BE_READ => {
                let errno = self.page.job(Job::Renew as usize).answer.load(SeqCst) as i32;
                failed(format_args!("{path} cannot be read: {}", crate::sys::describe(errno)))
            }
            IS_ANOTHER => failed(format_args!(
                "{path} is a version that cannot go on with what this one has begun: end multusd and start it again"
            )),
            _ => failed(format_args!("{path} is not multusd, or not for this machine")),
        };
        let is_agreed = matches!(reply, Reply::Done { .. });
        if is_agreed {
            say!("{}", "renewed: what is on storage takes over");
            self.page.renew.store(1, SeqCst);
            // Not `finished`: the guard replaces it.
            self.end.code = Some(0);
        } else {
            self.page.keep(Keep::Image, None);
        }
        if let Some(asker) = asker {
            self.tell_outcome(asker, reply);
        }
        self.end_takeover();
    }
}
