//! A file as a block device (`loop(4)`).
#![expect(
    unsafe_code,
    reason = "the kernel has no other way to a loop device than ioctls of its own"
)]

use std::ffi::c_void;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;

use camino::{Utf8Path, Utf8PathBuf};
use rustix::io::{Errno, Result};
use rustix::ioctl::{self, IntegerSetter, Ioctl, IoctlOutput, Opcode, Setter};

/// `LOOP_SET_FD`, `LOOP_CLR_FD`, `LOOP_SET_STATUS64` and `LOOP_CTL_GET_FREE` of `linux/loop.h`.
const SET_FD: Opcode = 0x4c00;
const CLEAR_FD: Opcode = 0x4c01;
const SET_STATUS: Opcode = 0x4c04;
const GET_FREE: Opcode = 0x4c82;

/// `LO_FLAGS_AUTOCLEAR`: the device lets go of the file when nobody uses it any more. So a program
/// that is killed leaves nothing but the mount, and no mount leaves a device.
const AUTOCLEAR: u32 = 4;

/// How often a device that somebody else took in the meantime is replaced by another one.
const ATTEMPTS: u32 = 64;

/// `struct loop_info64`.
#[repr(C)]
struct Status {
    device: u64,
    inode: u64,
    rdevice: u64,
    offset: u64,
    size_limit: u64,
    number: u32,
    encrypt_type: u32,
    encrypt_key_size: u32,
    flags: u32,
    file_name: [u8; 64],
    crypt_name: [u8; 64],
    encrypt_key: [u8; 32],
    init: [u64; 2],
}

/// A loop device over a file, until it is dropped and no longer mounted.
#[derive(Debug)]
pub(super) struct Loop {
    _device: File,
    /// Its path.
    pub(super) path: Utf8PathBuf,
}

impl Loop {
    /// Attaches a device to the file.
    pub(super) fn attach(file: &Utf8Path) -> io::Result<Self> {
        let backing = File::options().read(true).write(true).open(file)?;
        for _ in 0..ATTEMPTS {
            let path = free()?;
            let device = File::options().read(true).write(true).open(&path)?;
            let descriptor = usize::try_from(backing.as_raw_fd()).unwrap_or(usize::MAX);
            // SAFETY: this ioctl takes a file descriptor by value, and the file is open.
            let set = unsafe { IntegerSetter::<SET_FD>::new_usize(descriptor) };
            // SAFETY: the same.
            match unsafe { ioctl::ioctl(&device, set) } {
                Err(Errno::BUSY) => continue,
                other => other?,
            }
            if let Err(error) = set_autoclear(&device) {
                // SAFETY: this ioctl takes nothing.
                let _ = unsafe { ioctl::ioctl(&device, ioctl::NoArg::<CLEAR_FD>::new()) };
                return Err(error.into());
            }
            return Ok(Self {
                _device: device,
                path,
            });
        }
        Err(Errno::BUSY.into())
    }
}

fn set_autoclear(device: &File) -> Result<()> {
    let status = Status {
        device: 0,
        inode: 0,
        rdevice: 0,
        offset: 0,
        size_limit: 0,
        number: 0,
        encrypt_type: 0,
        encrypt_key_size: 0,
        flags: AUTOCLEAR,
        file_name: [0; 64],
        crypt_name: [0; 64],
        encrypt_key: [0; 32],
        init: [0; 2],
    };
    // SAFETY: this ioctl reads a `struct loop_info64`, which `Status` is.
    let set = unsafe { Setter::<SET_STATUS, Status>::new(status) };
    // SAFETY: the same.
    unsafe { ioctl::ioctl(device, set) }
}

/// The path of a device that is free now.
fn free() -> io::Result<Utf8PathBuf> {
    let control = File::open("/dev/loop-control")?;
    // SAFETY: this ioctl takes nothing and returns a number.
    let number = unsafe { ioctl::ioctl(&control, GetFree) }?;
    Ok(format!("/dev/loop{number}").into())
}

/// The numbers of the devices over a file, by `major:minor`.
pub(super) fn over(file: &Utf8Path) -> Vec<String> {
    let Ok(file) = file.canonicalize_utf8() else {
        return Vec::new();
    };
    let entries = fs::read_dir("/sys/block").into_iter().flatten();
    let is_over = |place: &std::path::Path| {
        let name = fs::read_to_string(place.join("loop/backing_file")).unwrap_or_default();
        name.trim_end_matches('\n') == file
    };
    let places = entries.filter_map(|entry| Some(entry.ok()?.path()));
    places
        .filter(|place| is_over(place))
        .filter_map(|place| fs::read_to_string(place.join("dev")).ok())
        .map(|number| number.trim().to_owned())
        .collect()
}

struct GetFree;

// SAFETY: the operation writes to no memory; its result is the number that it returns.
unsafe impl Ioctl for GetFree {
    type Output = u32;

    const IS_MUTATING: bool = false;

    fn opcode(&self) -> Opcode {
        GET_FREE
    }

    fn as_ptr(&mut self) -> *mut c_void {
        std::ptr::null_mut()
    }

    unsafe fn output_from_ptr(output: IoctlOutput, _: *mut c_void) -> Result<u32> {
        u32::try_from(output).map_err(|_| Errno::INVAL)
    }
}
