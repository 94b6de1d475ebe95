//! Serial lines (termios(3), ioctl_tty(2)); RS-485 by the driver (serial/serial-rs485 of the kernel's documentation).

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;

use super::{SysError, check, file};

/// How a line speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Speed {
    /// Bits per second.
    pub baud: u32,
    /// Some(true): even; Some(false): odd; None: no parity, and two stop bits, as Modbus wants it.
    pub even: Option<bool>,
    /// The driver switches the direction.
    pub rs485: bool,
}

/// The speeds there are.
pub const BAUDS: [u32; 8] = [1200, 2400, 4800, 9600, 19200, 38400, 57600, 115_200];

fn constant(baud: u32) -> libc::speed_t {
    match baud {
        1200 => libc::B1200,
        2400 => libc::B2400,
        4800 => libc::B4800,
        9600 => libc::B9600,
        38400 => libc::B38400,
        57600 => libc::B57600,
        115_200 => libc::B115200,
        _ => libc::B19200,
    }
}

/// SER_RS485_ENABLED and SER_RS485_RTS_ON_SEND of <linux/serial.h>.
const RS485_FLAGS: u32 = 1 | 2;

/// An open line, by the traits of embedded-io; `Interrupted`: nothing has come.
pub struct Serial(OwnedFd);

impl Serial {
    /// Opens it; nobody else may meanwhile (TIOCEXCL).
    pub fn open(path: &Path, speed: Speed) -> Result<Serial, SysError> {
        let line = file::open_path(path, OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_NONBLOCK, 0)?;
        let number = line.as_raw_fd();
        // SAFETY: plain numbers, for which zero is a value; filled in by the calls that follow.
        let mut settings = unsafe { std::mem::zeroed::<libc::termios>() };
        // SAFETY: a descriptor of our own, and a structure that lives across the calls.
        unsafe {
            check("tcgetattr", libc::tcgetattr(number, &mut settings))?;
            libc::cfmakeraw(&mut settings);
            settings.c_cflag &= !(libc::CSTOPB | libc::CRTSCTS | libc::PARENB | libc::PARODD);
            settings.c_cflag |= libc::CLOCAL | libc::CREAD | libc::CS8;
            settings.c_cflag |= match speed.even {
                Some(true) => libc::PARENB,
                Some(false) => libc::PARENB | libc::PARODD,
                None => libc::CSTOPB,
            };
            check("cfsetspeed", libc::cfsetspeed(&mut settings, constant(speed.baud)))?;
            check("tcsetattr", libc::tcsetattr(number, libc::TCSANOW, &settings))?;
            check("ioctl(TIOCEXCL)", libc::ioctl(number, libc::TIOCEXCL as _))?;
            if speed.rs485 {
                let mut words = [0_u32; 8];
                words[0] = RS485_FLAGS;
                check("ioctl(TIOCSRS485)", libc::ioctl(number, 0x542f as _, words.as_mut_ptr()))?;
            }
            check("tcflush", libc::tcflush(number, libc::TCIOFLUSH))?;
        }
        Ok(Serial(line))
    }
}

impl Serial {
    /// Everything that was written has left, as far as the driver knows (tty_ioctl(4)).
    pub fn is_sent(&self) -> bool {
        /// TIOCSER_TEMT of <linux/serial.h>: nothing is left in the device.
        const EMPTY: libc::c_int = 1;
        let number = self.0.as_raw_fd();
        let (mut waiting, mut state) = (0 as libc::c_int, EMPTY);
        // SAFETY: a descriptor of our own, and integers that live across the calls; what is not known stays as it is.
        unsafe {
            libc::ioctl(number, libc::TIOCOUTQ as _, &mut waiting);
            libc::ioctl(number, libc::TIOCSERGETLSR as _, &mut state);
        }
        waiting == 0 && state & EMPTY != 0
    }
}

impl AsFd for Serial {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl embedded_io::ErrorType for Serial {
    type Error = embedded_io::ErrorKind;
}

impl embedded_io::Read for Serial {
    fn read(&mut self, buffer: &mut [u8]) -> Result<usize, embedded_io::ErrorKind> {
        match nix::unistd::read(&self.0, buffer) {
            Ok(count) => Ok(count),
            Err(Errno::EAGAIN | Errno::EINTR) => Err(embedded_io::ErrorKind::Interrupted),
            Err(_) => Err(embedded_io::ErrorKind::BrokenPipe),
        }
    }
}

impl embedded_io::Write for Serial {
    fn write(&mut self, bytes: &[u8]) -> Result<usize, embedded_io::ErrorKind> {
        match nix::unistd::write(&self.0, bytes) {
            Ok(0) | Err(Errno::EAGAIN | Errno::EINTR) => Err(embedded_io::ErrorKind::WriteZero),
            Ok(count) => Ok(count),
            Err(_) => Err(embedded_io::ErrorKind::BrokenPipe),
        }
    }
    fn flush(&mut self) -> Result<(), embedded_io::ErrorKind> {
        Ok(())
    }
}
