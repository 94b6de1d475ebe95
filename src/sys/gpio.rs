//! The GPIO character device, version 2 of its interface (linux/gpio.h, Linux 5.10): chips and their
//! lines, requests of one line each, levels, edges.
//!
//! A request is exclusive, and it is a descriptor: whoever holds a copy holds the line.

use core::mem::{size_of, zeroed};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

use nix::fcntl::OFlag;

use super::SysError;
use super::file::{each_name, open_path};

/// What a line is to be: bits of a request's flags (GPIO_V2_LINE_FLAG_*).
pub mod flag {
    /// Its value is the opposite of its voltage.
    pub const ACTIVE_LOW: u64 = 1 << 1;
    /// Read.
    pub const INPUT: u64 = 1 << 2;
    /// Driven.
    pub const OUTPUT: u64 = 1 << 3;
    /// Both edges are events.
    pub const EDGES: u64 = 1 << 4 | 1 << 5;
    /// Driven low only.
    pub const OPEN_DRAIN: u64 = 1 << 6;
    /// Driven high only.
    pub const OPEN_SOURCE: u64 = 1 << 7;
    /// The chip's own resistor, upwards.
    pub const PULL_UP: u64 = 1 << 8;
    /// Downwards.
    pub const PULL_DOWN: u64 = 1 << 9;
    /// None.
    pub const BIAS_DISABLED: u64 = 1 << 10;
}

/// Names and labels, with their zero byte.
const NAME_BYTES: usize = 32;
const LINE_COUNT_MAX: usize = 64;
const ATTRIBUTE_COUNT_MAX: usize = 10;
/// GPIO_V2_LINE_ATTR_ID_OUTPUT_VALUES and _DEBOUNCE.
const OUTPUT_VALUES: u32 = 2;
const DEBOUNCE: u32 = 3;
/// GPIO_V2_LINE_EVENT_RISING_EDGE
const RISING_EDGE: u32 = 1;

type Name = [u8; NAME_BYTES];

/// struct gpiochip_info
#[repr(C)]
struct ChipInfo {
    name: Name,
    label: Name,
    lines: u32,
}

/// struct gpio_v2_line_config_attribute: what, its value, for which lines of the request.
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct Attribute {
    id: u32,
    padding: u32,
    value: u64,
    mask: u64,
}

/// struct gpio_v2_line_config
#[repr(C, align(8))]
#[derive(Clone, Copy)]
struct LineConfig {
    flags: u64,
    attribute_count: u32,
    padding: [u32; 5],
    attributes: [Attribute; ATTRIBUTE_COUNT_MAX],
}

/// struct gpio_v2_line_request
#[repr(C, align(8))]
struct LineRequest {
    offsets: [u32; LINE_COUNT_MAX],
    consumer: Name,
    config: LineConfig,
    line_count: u32,
    event_buffer_size: u32,
    padding: [u32; 5],
    descriptor: i32,
}

/// struct gpio_v2_line_info; its attributes are 16 bytes each.
#[repr(C, align(8))]
struct LineInfo {
    name: Name,
    consumer: Name,
    offset: u32,
    attribute_count: u32,
    flags: u64,
    attributes: [[u64; 2]; ATTRIBUTE_COUNT_MAX],
    padding: [u32; 4],
}

/// struct gpio_v2_line_values
#[repr(C, align(8))]
struct LineValues {
    bits: u64,
    mask: u64,
}

/// struct gpio_v2_line_event
#[repr(C, align(8))]
#[derive(Clone, Copy, Default)]
struct LineEvent {
    time_ns: u64,
    id: u32,
    offset: u32,
    sequence: u32,
    line_sequence: u32,
    padding: [u32; 6],
}

const _: () = assert!(size_of::<ChipInfo>() == 68);
const _: () = assert!(size_of::<Attribute>() == 24);
const _: () = assert!(size_of::<LineConfig>() == 272);
const _: () = assert!(size_of::<LineRequest>() == 592);
const _: () = assert!(size_of::<LineInfo>() == 256);
const _: () = assert!(size_of::<LineValues>() == 16);
const _: () = assert!(size_of::<LineEvent>() == 48);

mod call {
    #![allow(missing_docs, reason = "functions made by a macro; gpio.h has their names")]
    use super::{ChipInfo, LineConfig, LineInfo, LineRequest, LineValues};

    nix::ioctl_read!(get_chip_info, 0xb4, 0x01, ChipInfo);
    nix::ioctl_readwrite!(get_line_info, 0xb4, 0x05, LineInfo);
    nix::ioctl_readwrite!(get_line, 0xb4, 0x07, LineRequest);
    nix::ioctl_readwrite!(set_config, 0xb4, 0x0d, LineConfig);
    nix::ioctl_readwrite!(get_values, 0xb4, 0x0e, LineValues);
    nix::ioctl_readwrite!(set_values, 0xb4, 0x0f, LineValues);
}
use call::{get_chip_info, get_line, get_line_info, get_values, set_config, set_values};

/// A chip that is there.
pub struct Chip {
    file: OwnedFd,
    info: ChipInfo,
}

impl Chip {
    /// By its number in /dev, which is the order of discovery's and says nothing of the wiring: see
    /// [`Chip::label`].
    pub fn open(number: u32) -> Result<Chip, SysError> {
        let path = ["/dev/gpiochip", &number.to_string()].concat();
        let file = open_path(Path::new(&path), OFlag::O_RDWR, 0)?;
        // SAFETY: integers and bytes, for which zero is a value.
        let mut info: ChipInfo = unsafe { zeroed() };
        // SAFETY: the structure is the kernel's, and lives across the call.
        unsafe { get_chip_info(file.as_raw_fd(), &mut info) }.map_err(SysError::of("GPIO chip"))?;
        Ok(Chip { file, info })
    }

    /// What its driver calls it: `pinctrl-bcm2711`, `gpio-mmio`.
    pub fn label(&self) -> &str {
        text(&self.info.label)
    }

    /// How many lines it has.
    pub fn line_count(&self) -> u32 {
        self.info.lines
    }

    /// Whether one of its lines has this name (the device tree's, `gpio-line-names`).
    pub fn line_is_called(&self, offset: u32, name: &str) -> bool {
        // SAFETY: as in `open`.
        let mut info: LineInfo = unsafe { zeroed() };
        info.offset = offset;
        // SAFETY: as in `open`.
        let told = unsafe { get_line_info(self.file.as_raw_fd(), &mut info) };
        told.is_ok() && text(&info.name) == name
    }

    /// Requests a line to be driven at this value, or, without one, to be read, its edges being events.
    /// EBUSY: somebody else has it.
    pub fn request(
        &self,
        offset: u32,
        flags: u64,
        value: Option<bool>,
        debounce_us: u32,
    ) -> Result<OwnedFd, SysError> {
        // SAFETY: as in `open`.
        let mut request: LineRequest = unsafe { zeroed() };
        request.offsets[0] = offset;
        request.line_count = 1;
        request.consumer[..7].copy_from_slice(b"multusd");
        request.config = match value {
            Some(value) => config(flags, OUTPUT_VALUES, value.into()),
            // Four bytes of the kernel's union of eight.
            None => config(
                flags,
                if debounce_us == 0 { 0 } else { DEBOUNCE },
                u64::from_ne_bytes(halves(debounce_us)),
            ),
        };
        // SAFETY: as in `open`; the descriptor returned is ours alone.
        unsafe {
            get_line(self.file.as_raw_fd(), &mut request).map_err(SysError::of("GPIO line"))?;
            Ok(OwnedFd::from_raw_fd(request.descriptor))
        }
    }
}

fn halves(first: u32) -> [u8; 8] {
    let mut bytes = [0; 8];
    bytes[..4].copy_from_slice(&first.to_ne_bytes());
    bytes
}

/// The text before the first zero byte; empty where it is not UTF-8.
fn text(name: &Name) -> &str {
    let length = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
    str::from_utf8(&name[..length]).unwrap_or("")
}

/// With one attribute for the one line; 0: with none.
fn config(flags: u64, id: u32, value: u64) -> LineConfig {
    // SAFETY: as in `Chip::open`.
    let mut config: LineConfig = unsafe { zeroed() };
    config.flags = flags;
    if id != 0 {
        config.attribute_count = 1;
        config.attributes[0] = Attribute { id, padding: 0, value, mask: 1 };
    }
    config
}

/// The numbers of the chips in /dev.
pub fn chips() -> Vec<u32> {
    let mut numbers = Vec::new();
    each_name(Path::new("/dev"), &mut |name, _| {
        let number = name.to_str().ok().and_then(|name| name.strip_prefix("gpiochip")?.parse::<u32>().ok());
        numbers.extend(number);
    });
    numbers.sort_unstable();
    numbers
}

/// Whether driving a line of this chip may wait: for a bus, for a firmware. Told by where the chip is
/// attached; one that gives no hint is taken for a part of the processor.
pub fn may_wait(chip: u32) -> bool {
    let path = ["/sys/bus/gpio/devices/gpiochip", &chip.to_string()].concat();
    let link = nix::fcntl::readlink(path.as_str()).unwrap_or_default();
    let link = link.to_string_lossy();
    ["/i2c-", "/spi", "/usb", "firmware", "gpio-sim"].iter().any(|part| link.contains(part))
}

/// Makes a line all that its flags say, whatever it was made by others who hold it, and drives this
/// value, all in one: to set the value alone fails on a line that was turned into an input.
pub fn drive(line: BorrowedFd, flags: u64, value: bool) -> Result<(), SysError> {
    let mut config = config(flags, OUTPUT_VALUES, value.into());
    // SAFETY: as in `Chip::open`.
    unsafe { set_config(line.as_raw_fd(), &mut config) }.map(drop).map_err(SysError::of("GPIO line"))
}

/// The line's value: of an output as well as of an input what its chip reads, which of most is the pad.
pub fn value(line: BorrowedFd) -> Result<bool, SysError> {
    let mut values = LineValues { bits: 0, mask: 1 };
    // SAFETY: as in `Chip::open`.
    unsafe { get_values(line.as_raw_fd(), &mut values) }.map_err(SysError::of("GPIO value"))?;
    Ok(values.bits & 1 == 1)
}

/// Drives a line at this value, and leaves what else it is as it is: for the program that owns it.
pub fn set(line: BorrowedFd, value: bool) -> Result<(), SysError> {
    let mut values = LineValues { bits: value.into(), mask: 1 };
    // SAFETY: as in `Chip::open`.
    unsafe { set_values(line.as_raw_fd(), &mut values) }.map(drop).map_err(SysError::of("GPIO line"))
}

/// The last of the edges that wait.
pub struct Edge {
    /// The value since then.
    pub value: bool,
    /// When, CLOCK_MONOTONIC nanoseconds, by the kernel.
    pub at_ns: u64,
    /// Edges since the line was requested, those included that nobody read in time.
    pub count: u32,
}

/// Takes edges that wait, some at a time; `None`: none does. Only for what is known to be readable.
pub fn take_edges(line: BorrowedFd) -> Option<Edge> {
    let mut events = [LineEvent::default(); 16];
    // SAFETY: the structures are integers, as long as said, and live across the call.
    let length =
        unsafe { libc::read(line.as_raw_fd(), events.as_mut_ptr().cast(), size_of::<[LineEvent; 16]>()) };
    let count = usize::try_from(length).ok()? / size_of::<LineEvent>();
    let last = events[..count].last()?;
    Some(Edge { value: last.id == RISING_EDGE, at_ns: last.time_ns, count: last.line_sequence })
}
