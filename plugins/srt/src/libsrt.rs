// SPDX-License-Identifier: MPL-2.0
#![allow(unsafe_code)]
//! What is used of libsrt, found at run time: GStreamer's own SRT elements bring it along, and `srtsrc` takes one caller.
//!
//! The only module with unsafe code. Types and numbers are those of `srt.h` 1.4 and newer, which have not changed since.

use std::ffi::{CStr, c_char, c_int, c_void};
use std::io;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::LazyLock;
use std::time::Duration;

use libloading::Library;
use nix::sys::socket::{SockaddrLike, SockaddrStorage};

/// Debian's and Ubuntu's builds, and what others call it.
const NAMES: [&str; 4] = [
    "libsrt-gnutls.so.1.5",
    "libsrt.so.1.5",
    "libsrt-openssl.so.1.5",
    "libsrt.so.1",
];

type Handle = c_int;
type Address = nix::libc::sockaddr;
type Callback = extern "C" fn(*mut c_void, Handle, c_int, *const Address, *const c_char) -> c_int;

const INVALID: Handle = -1;
/// `SRT_SOCKOPT`.
const RCVSYN: c_int = 2;
/// From this version on (1.5.4; 1.5.1 does) `srt_startup` does not count who began it, so that the last of GStreamer's own SRT
/// elements would end it for all: one is kept. Where it counts, that would keep the library, and the process with it, from
/// its end.
const UNCOUNTED: u32 = 0x01_05_04;
const RCVTIMEO: c_int = 14;
const LATENCY: c_int = 23;
const PASSPHRASE: c_int = 26;
const STREAMID: c_int = 46;
/// Of syslog.
const LOG_CRITICAL: c_int = 2;
/// `SRT_ERRNO`: nothing came in time.
const ETIMEOUT: c_int = 6_003;
/// A stream id has at most so many octets.
const STREAMID_MAX: usize = 512;
/// More than any message of live mode, which is a datagram.
const MESSAGE_MAX: usize = 1_500;

/// Why a caller is turned away, as libsrt tells it (`access_control.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(i32)]
pub(crate) enum Reject {
    BadRequest = 1_400,
    Unauthorized = 1_401,
    Overload = 1_402,
    Forbidden = 1_403,
    BadMode = 1_405,
    Conflict = 1_409,
    Failed = 1_500,
}

struct Api {
    create_socket: unsafe extern "C" fn() -> Handle,
    bind: unsafe extern "C" fn(Handle, *const Address, c_int) -> c_int,
    listen: unsafe extern "C" fn(Handle, c_int) -> c_int,
    listen_callback: unsafe extern "C" fn(Handle, Callback, *mut c_void) -> c_int,
    accept: unsafe extern "C" fn(Handle, *mut Address, *mut c_int) -> Handle,
    close: unsafe extern "C" fn(Handle) -> c_int,
    getsockname: unsafe extern "C" fn(Handle, *mut Address, *mut c_int) -> c_int,
    getsockflag: unsafe extern "C" fn(Handle, c_int, *mut c_void, *mut c_int) -> c_int,
    setsockflag: unsafe extern "C" fn(Handle, c_int, *const c_void, c_int) -> c_int,
    setrejectreason: unsafe extern "C" fn(Handle, c_int) -> c_int,
    recvmsg: unsafe extern "C" fn(Handle, *mut c_char, c_int) -> c_int,
    getlasterror: unsafe extern "C" fn(*mut c_int) -> c_int,
    getlasterror_str: unsafe extern "C" fn() -> *const c_char,
    /// Never unloaded: its threads live as long as the process.
    _library: Library,
}

static API: LazyLock<Result<Api, String>> = LazyLock::new(load);

fn load() -> Result<Api, String> {
    let mut failures = Vec::new();
    for name in NAMES {
        // SAFETY: libsrt's initialisers do nothing but build its tables.
        match unsafe { Library::new(name) } {
            // SAFETY: the functions have the types that `srt.h` gives them.
            Ok(library) => return unsafe { symbols(library) }.map_err(|e| e.to_string()),
            Err(error) => failures.push(error.to_string()),
        }
    }
    Err(format!(
        "libsrt is not there, which comes with gstreamer1.0-plugins-bad: {}",
        failures.join("; ")
    ))
}

/// # Safety
///
/// The library must be libsrt.
unsafe fn symbols(library: Library) -> Result<Api, libloading::Error> {
    macro_rules! symbol {
        ($name:literal) => {
            // SAFETY: see above.
            unsafe { *library.get($name)? }
        };
    }
    let startup: unsafe extern "C" fn() -> c_int = symbol!(b"srt_startup\0");
    let version: unsafe extern "C" fn() -> u32 = symbol!(b"srt_getversion\0");
    let set_log_level: unsafe extern "C" fn(c_int) = symbol!(b"srt_setloglevel\0");
    let api = Api {
        create_socket: symbol!(b"srt_create_socket\0"),
        bind: symbol!(b"srt_bind\0"),
        listen: symbol!(b"srt_listen\0"),
        listen_callback: symbol!(b"srt_listen_callback\0"),
        accept: symbol!(b"srt_accept\0"),
        close: symbol!(b"srt_close\0"),
        getsockname: symbol!(b"srt_getsockname\0"),
        getsockflag: symbol!(b"srt_getsockflag\0"),
        setsockflag: symbol!(b"srt_setsockflag\0"),
        setrejectreason: symbol!(b"srt_setrejectreason\0"),
        recvmsg: symbol!(b"srt_recvmsg\0"),
        getlasterror: symbol!(b"srt_getlasterror\0"),
        getlasterror_str: symbol!(b"srt_getlasterror_str\0"),
        _library: library,
    };
    // SAFETY: may be called any number of times; GStreamer's elements do so as well.
    unsafe { startup() };
    // SAFETY: no arguments.
    if unsafe { version() } >= UNCOUNTED
        && let Ok(kept) = gst::ElementFactory::make("srtsrc").build()
    {
        std::mem::forget(kept);
    }
    // It would write lines to stderr about each caller that is refused, which strangers may cause without end.
    // SAFETY: a plain number.
    unsafe { set_log_level(LOG_CRITICAL) };
    Ok(api)
}

fn api() -> io::Result<&'static Api> {
    API.as_ref()
        .map_err(|error| io::Error::other(error.as_str()))
}

/// This thread's last error.
fn last_error(api: &Api) -> io::Error {
    // SAFETY: both only read what belongs to this thread; the text is one that libsrt keeps for it.
    let (code, text) = unsafe {
        let code = (api.getlasterror)(std::ptr::null_mut());
        let text = (api.getlasterror_str)();
        let text = (!text.is_null()).then(|| CStr::from_ptr(text).to_string_lossy().into_owned());
        (code, text.unwrap_or_default())
    };
    let kind = match code {
        ETIMEOUT => io::ErrorKind::TimedOut,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, text)
}

fn check(api: &Api, status: c_int) -> io::Result<()> {
    match status {
        0.. => Ok(()),
        _ => Err(last_error(api)),
    }
}

fn length(bytes: usize) -> io::Result<c_int> {
    c_int::try_from(bytes).map_err(io::Error::other)
}

/// A socket, closed when dropped.
#[derive(Debug)]
pub(crate) struct Socket(Handle);

impl Drop for Socket {
    fn drop(&mut self) {
        self.close();
    }
}

impl Socket {
    /// Ends it from any thread: what waits in it returns.
    pub(crate) fn close(&self) {
        if let Ok(api) = api() {
            // SAFETY: handles are never used again by libsrt; one that is closed already is an error, and no more.
            unsafe { (api.close)(self.0) };
        }
    }

    fn set(&self, option: c_int, value: &[u8]) -> io::Result<()> {
        set(self.0, option, value)
    }

    /// The next message, which has come by its latency, or `TimedOut`.
    pub(crate) fn receive<'a>(&self, into: &'a mut Buffer) -> io::Result<&'a [u8]> {
        let api = api()?;
        let room = length(into.0.len())?;
        // SAFETY: it writes no more than `room`.
        let got = unsafe { (api.recvmsg)(self.0, into.0.as_mut_ptr().cast(), room) };
        check(api, got)?;
        let got = usize::try_from(got).unwrap_or_default();
        Ok(into.0.get(..got).unwrap_or_default())
    }

    /// What the caller has named.
    pub(crate) fn stream_id(&self) -> io::Result<String> {
        let api = api()?;
        let mut text = [0u8; STREAMID_MAX + 1];
        let mut room = length(text.len())?;
        let into = text.as_mut_ptr().cast();
        // SAFETY: it writes no more than `room`, and how much that was.
        check(api, unsafe {
            (api.getsockflag)(self.0, STREAMID, into, &raw mut room)
        })?;
        let got = usize::try_from(room).unwrap_or_default().min(text.len());
        let text = text[..got].split(|byte| *byte == 0).next();
        Ok(String::from_utf8_lossy(text.unwrap_or_default()).into_owned())
    }
}

fn set(handle: Handle, option: c_int, value: &[u8]) -> io::Result<()> {
    let api = api()?;
    // SAFETY: it reads so many octets.
    check(api, unsafe {
        (api.setsockflag)(handle, option, value.as_ptr().cast(), length(value.len())?)
    })
}

/// Room for a message.
#[derive(Debug)]
pub(crate) struct Buffer([u8; MESSAGE_MAX]);

impl Default for Buffer {
    fn default() -> Self {
        Self([0; MESSAGE_MAX])
    }
}

/// Who is let in: gets the stream id of a caller and where it calls from, and gives the passphrase that it must have, which
/// may be empty. It must not wait: nobody else is heard meanwhile.
pub(crate) type Gate = dyn Fn(&str, Option<SocketAddr>) -> Result<String, Reject> + Send + Sync;

/// Waits for callers.
#[derive(Debug)]
pub(crate) struct Listener {
    socket: Socket,
}

/// Called by libsrt, on a thread of its own, in a caller's handshake.
extern "C" fn knock(
    gate: *mut c_void,
    handle: Handle,
    _version: c_int,
    peer: *const Address,
    stream_id: *const c_char,
) -> c_int {
    let answer = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: `gate` is what `Listener::open` gave, which lives for ever.
        let gate = unsafe { &*gate.cast_const().cast::<Box<Gate>>() };
        let id = match stream_id.is_null() {
            true => String::new(),
            // SAFETY: libsrt gives a text that ends, for as long as the call lasts.
            false => unsafe { CStr::from_ptr(stream_id) }
                .to_string_lossy()
                .into_owned(),
        };
        // SAFETY: libsrt gives the whole address of the family that it names, or none.
        let from = unsafe { SockaddrStorage::from_raw(peer, None) };
        let passphrase = gate(&id, from.and_then(|from| plain(&from)))?;
        set(handle, PASSPHRASE, passphrase.as_bytes()).map_err(|_| Reject::Failed)
    }));
    let Err(reason) = answer.unwrap_or(Err(Reject::Failed)) else {
        return 0;
    };
    if let Ok(api) = api() {
        // SAFETY: the handle is that of the caller who is about to be turned away.
        unsafe { (api.setrejectreason)(handle, reason as c_int) };
    }
    -1
}

impl Listener {
    /// Listens at an address. Callers' messages come `latency` late, and are waited for no longer than `patience` at once.
    ///
    /// The gate is never dropped: libsrt does not promise that it is not being called when a socket has been closed.
    pub(crate) fn open(
        address: SocketAddr,
        latency: Duration,
        patience: Duration,
        gate: Box<Gate>,
    ) -> io::Result<Self> {
        let api = api()?;
        // SAFETY: no arguments.
        let socket = unsafe { (api.create_socket)() };
        if socket == INVALID {
            return Err(last_error(api));
        }
        let listener = Self {
            socket: Socket(socket),
        };
        let socket = &listener.socket;
        let milliseconds = |time: Duration| -> io::Result<[u8; 4]> {
            Ok(length(time.as_millis().try_into().unwrap_or(usize::MAX))?.to_ne_bytes())
        };
        socket.set(RCVSYN, &1i32.to_ne_bytes())?;
        socket.set(LATENCY, &milliseconds(latency)?)?;
        socket.set(RCVTIMEO, &milliseconds(patience)?)?;
        let gate: *const Box<Gate> = Box::leak(Box::new(gate));
        // SAFETY: the gate is there from now on.
        check(api, unsafe {
            (api.listen_callback)(socket.0, knock, gate.cast_mut().cast())
        })?;
        let address = SockaddrStorage::from(address);
        // SAFETY: the address is a whole one of this length.
        check(api, unsafe {
            (api.bind)(socket.0, address.as_ptr(), length(address.len() as usize)?)
        })?;
        // SAFETY: plain numbers.
        check(api, unsafe { (api.listen)(socket.0, 32) })?;
        Ok(listener)
    }

    /// The port that it listens at.
    pub(crate) fn port(&self) -> io::Result<u16> {
        let get = |api: &Api, into, room| {
            // SAFETY: `address_of` gives room for any address.
            unsafe { (api.getsockname)(self.socket.0, into, room) }
        };
        let (_, address) = address_of(get)?;
        Ok(address.map_or(0, |address| address.port()))
    }

    /// Waits for the next caller, until it is closed.
    pub(crate) fn accept(&self) -> io::Result<(Socket, Option<SocketAddr>)> {
        let accept = |api: &Api, into, room| {
            // SAFETY: `address_of` gives room for any address.
            unsafe { (api.accept)(self.socket.0, into, room) }
        };
        let (handle, address) = address_of(accept)?;
        Ok((Socket(handle), address))
    }

    /// Ends it from any thread: `accept` returns.
    pub(crate) fn close(&self) {
        self.socket.close();
    }
}

/// Calls what gives an address, and something else that is below zero where it fails.
fn address_of(
    get: impl FnOnce(&Api, *mut Address, *mut c_int) -> c_int,
) -> io::Result<(c_int, Option<SocketAddr>)> {
    let api = api()?;
    // SAFETY: it is plain data, of which all zeroes are valid.
    let mut room: nix::libc::sockaddr_storage = unsafe { std::mem::zeroed() };
    let mut size = length(size_of_val(&room))?;
    let got = get(api, (&raw mut room).cast(), &raw mut size);
    check(api, got)?;
    let size = size.try_into().ok();
    // SAFETY: so much of it was written.
    let address = unsafe { SockaddrStorage::from_raw((&raw const room).cast(), size) };
    let address = address.and_then(|address| plain(&address));
    Ok((got, address))
}

fn plain(address: &SockaddrStorage) -> Option<SocketAddr> {
    let four = address.as_sockaddr_in();
    let four = four.map(|a| SocketAddr::V4((*a).into()));
    let six = || {
        let six = address.as_sockaddr_in6();
        six.map(|a| SocketAddr::V6((*a).into()))
    };
    four.or_else(six)
}
