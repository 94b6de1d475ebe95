//! I2C, SPI and PWM (i2c/dev-interface, spi/spidev and driver-api/pwm of the kernel's documentation): bytes to a chip, and bytes
//! from it. Knows no chip.
//!
//! I2C and SPI by rppal; where that does not compile (32-bit ARM with a 64-bit time) by the same calls of the kernel. Its PWM is
//! not used: it asks the C library's name service who `root` and `gpio` are, waits up to a second for files to become theirs,
//! and switches off what it opens.

use std::os::fd::AsFd;
use std::path::Path;

use nix::fcntl::OFlag;

use super::{SysError, file};

/// A way to one chip. What stands behind it may be a simulation.
pub trait Wire {
    /// Sends, and receives. I2C: an empty `receive` is a write of one byte, an empty `send` a read of one, else `send` is a
    /// register that two bytes are read from. SPI: both at once, of one length. PWM: eight bytes, the most significant first:
    /// nanoseconds that it is on for in each period.
    fn exchange(&mut self, send: &[u8], receive: &mut [u8]) -> Result<(), SysError>;
}

/// Where a chip is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `/dev/i2c-BUS`, 7-bit address.
    I2c(u8, u8),
    /// `/dev/spidevBUS.SELECT`, at 1 MHz, mode 0.
    Spi(u8, u8),
    /// `/sys/class/pwm/pwmchipCHIP`, channel, nanoseconds of a period.
    Pwm(u8, u8, u64),
}

/// As fast as the slowest of the chips that are driven so may be clocked.
const SPI_HZ: u32 = 1_000_000;

/// Opens the way there; EBUSY: a driver of the kernel's has the chip.
pub fn open(place: Place) -> Result<Box<dyn Wire>, SysError> {
    match place {
        Place::I2c(bus, address) => means::i2c(bus, address),
        Place::Spi(bus, select) => means::spi(bus, select),
        Place::Pwm(chip, channel, period) => Pwm::open(chip, channel, period),
    }
}

/// The directory of its files, which stay as they are when this process ends.
struct Pwm(String);

impl Pwm {
    fn open(chip: u8, channel: u8, period: u64) -> Result<Box<dyn Wire>, SysError> {
        let at = ["/sys/class/pwm/pwmchip", &chip.to_string(), "/"].concat();
        let pwm = Pwm([&at, "pwm", &channel.to_string(), "/"].concat());
        if !file::exists(&pwm.0) {
            write(&[&at, "export"].concat(), channel.into())?;
        }
        let is = file::read_bounded(Path::new(&[&pwm.0, "period"].concat()), 64)?;
        if is.trim_ascii_end() != period.to_string().as_bytes() {
            // A period shorter than the former pulse would be refused.
            let _ = pwm.write("duty_cycle", 0);
            pwm.write("period", period)?;
        }
        Ok(Box::new(pwm))
    }

    fn write(&self, name: &str, number: u64) -> Result<(), SysError> {
        write(&[&self.0, name].concat(), number)
    }
}

fn write(path: &str, number: u64) -> Result<(), SysError> {
    let file = file::open_path(Path::new(path), OFlag::O_WRONLY, 0)?;
    file::write_at_start(file.as_fd(), number.to_string().as_bytes())
}

impl Wire for Pwm {
    fn exchange(&mut self, send: &[u8], _receive: &mut [u8]) -> Result<(), SysError> {
        self.write("duty_cycle", u64::from_be_bytes(send.try_into().unwrap_or_default()))?;
        self.write("enable", 1)
    }
}

#[cfg(not(target_arch = "arm"))]
mod means {
    use rppal::{i2c, spi};

    use super::{SPI_HZ, SysError, Wire};

    fn of_i2c(operation: &'static str, error: i2c::Error) -> SysError {
        let errno = if let i2c::Error::Io(error) = error { error.raw_os_error() } else { None };
        SysError { operation, errno: errno.unwrap_or(libc::EINVAL) }
    }

    fn of_spi(operation: &'static str, error: spi::Error) -> SysError {
        let errno = if let spi::Error::Io(error) = error { error.raw_os_error() } else { None };
        SysError { operation, errno: errno.unwrap_or(libc::EINVAL) }
    }

    pub fn i2c(bus: u8, address: u8) -> Result<Box<dyn Wire>, SysError> {
        let mut bus = i2c::I2c::with_bus(bus).map_err(|error| of_i2c("open I2C", error))?;
        bus.set_slave_address(address.into()).map_err(|error| of_i2c("I2C address", error))?;
        Ok(Box::new(I2c(bus)))
    }

    pub fn spi(bus: u8, select: u8) -> Result<Box<dyn Wire>, SysError> {
        use spi::{Bus::*, SlaveSelect::*};
        // There is no way from a number to theirs.
        let bus = [Spi0, Spi1, Spi2, Spi3, Spi4, Spi5, Spi6][usize::from(bus).min(6)];
        let select = [Ss0, Ss1, Ss2][usize::from(select).min(2)];
        let spi = spi::Spi::new(bus, select, SPI_HZ, spi::Mode::Mode0);
        Ok(Box::new(Spi(spi.map_err(|error| of_spi("open SPI", error))?)))
    }

    struct I2c(i2c::I2c);
    struct Spi(spi::Spi);

    impl Wire for I2c {
        fn exchange(&mut self, send: &[u8], receive: &mut [u8]) -> Result<(), SysError> {
            let result = match (send, receive) {
                ([byte], []) => self.0.smbus_send_byte(*byte),
                ([], [byte]) => self.0.smbus_receive_byte().map(|is| *byte = is),
                // SMBus has the low byte first.
                ([register], [first, second]) => {
                    self.0.smbus_read_word(*register).map(|word| [*first, *second] = word.to_le_bytes())
                }
                _ => Err(i2c::Error::FeatureNotSupported),
            };
            result.map_err(|error| of_i2c("I2C", error))
        }
    }

    impl Wire for Spi {
        fn exchange(&mut self, send: &[u8], receive: &mut [u8]) -> Result<(), SysError> {
            self.0.transfer(receive, send).map(drop).map_err(|error| of_spi("SPI", error))
        }
    }
}

#[cfg(target_arch = "arm")]
mod means {
    use std::os::fd::{AsRawFd, OwnedFd};
    use std::path::Path;

    use nix::fcntl::OFlag;

    use super::{SPI_HZ, SysError, Wire};
    use crate::sys::{check, file};

    /// I2C_SLAVE and I2C_SMBUS of <linux/i2c-dev.h>, sizes of <linux/i2c.h>.
    const I2C_SLAVE: libc::c_int = 0x0703;
    const I2C_SMBUS: libc::c_int = 0x0720;
    const SMBUS_BYTE: u32 = 1;
    const SMBUS_WORD_DATA: u32 = 3;

    /// SPI_IOC_WR_MODE, _BITS_PER_WORD, _MAX_SPEED_HZ and SPI_IOC_MESSAGE(1) of <linux/spi/spidev.h>.
    const SPI_MODE: libc::c_int = 0x4001_6b01;
    const SPI_BITS: libc::c_int = 0x4001_6b03;
    const SPI_SPEED: libc::c_int = 0x4004_6b04;
    const SPI_MESSAGE: libc::c_int = 0x4020_6b00;

    /// i2c_smbus_ioctl_data
    #[repr(C)]
    struct SmBus {
        reads: u8,
        command: u8,
        size: u32,
        data: *mut [u8; 34],
    }

    /// spi_ioc_transfer
    #[repr(C)]
    struct Transfer {
        send: u64,
        receive: u64,
        length: u32,
        hz: u32,
        rest: u64,
    }
    const _: () = assert!(size_of::<Transfer>() == 32);

    fn device(path: &str) -> Result<OwnedFd, SysError> {
        file::open_path(Path::new(path), OFlag::O_RDWR, 0)
    }

    pub fn i2c(bus: u8, address: u8) -> Result<Box<dyn Wire>, SysError> {
        let bus = device(&["/dev/i2c-", &bus.to_string()].concat())?;
        // SAFETY: a descriptor of our own, and a number.
        let result = unsafe { libc::ioctl(bus.as_raw_fd(), I2C_SLAVE, libc::c_ulong::from(address)) };
        check("I2C address", result)?;
        Ok(Box::new(I2c(bus)))
    }

    pub fn spi(bus: u8, select: u8) -> Result<Box<dyn Wire>, SysError> {
        let spi = device(&["/dev/spidev", &bus.to_string(), ".", &select.to_string()].concat())?;
        let (number, mode, bits, hz) = (spi.as_raw_fd(), 0_u8, 8_u8, SPI_HZ);
        // SAFETY: a descriptor of our own, and numbers that live across the calls.
        unsafe {
            check("SPI mode", libc::ioctl(number, SPI_MODE, &mode))?;
            check("SPI bits", libc::ioctl(number, SPI_BITS, &bits))?;
            check("SPI speed", libc::ioctl(number, SPI_SPEED, &hz))?;
        }
        Ok(Box::new(Spi(spi)))
    }

    struct I2c(OwnedFd);
    struct Spi(OwnedFd);

    impl Wire for I2c {
        fn exchange(&mut self, send: &[u8], receive: &mut [u8]) -> Result<(), SysError> {
            let mut data = [0; 34];
            let mut request = SmBus {
                reads: u8::from(!receive.is_empty()),
                command: send.first().copied().unwrap_or(0),
                size: if receive.len() == 2 { SMBUS_WORD_DATA } else { SMBUS_BYTE },
                data: &mut data,
            };
            // SAFETY: a descriptor of our own, and structures that live across the call.
            check("I2C", unsafe { libc::ioctl(self.0.as_raw_fd(), I2C_SMBUS, &mut request) })?;
            // A word comes as the machine has it, which is little-endian as SMBus is.
            receive.copy_from_slice(&data[..receive.len().min(2)]);
            Ok(())
        }
    }

    impl Wire for Spi {
        fn exchange(&mut self, send: &[u8], receive: &mut [u8]) -> Result<(), SysError> {
            let length = send.len().min(receive.len()) as u32;
            let (send, receive) = (send.as_ptr() as u64, receive.as_mut_ptr() as u64);
            let transfer = Transfer { send, receive, length, hz: 0, rest: 0 };
            // SAFETY: a descriptor of our own, and two buffers of this length that live across the call.
            check("SPI", unsafe { libc::ioctl(self.0.as_raw_fd(), SPI_MESSAGE, &transfer) }).map(drop)
        }
    }
}
