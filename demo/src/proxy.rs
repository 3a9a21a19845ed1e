//! A network that breaks: passes connections on to the server and cuts the first large answer.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;

/// A proxy in front of a server.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug)]
struct State {
    server: SocketAddr,
    /// Answer bytes on one connection after which it is cut, while there is a cut left.
    cut_after: u64,
    cuts_left: AtomicBool,
    sent: AtomicU64,
}

impl Proxy {
    /// Listens on a free port of the loopback.
    pub fn start(server: SocketAddr, cut_after: u64) -> io::Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        let state = Arc::new(State {
            server,
            cut_after,
            cuts_left: AtomicBool::new(true),
            sent: AtomicU64::new(0),
        });
        let shared = Arc::clone(&state);
        // Ends with the process, as each of its connections.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let state = Arc::clone(&shared);
                thread::spawn(move || {
                    // A connection that breaks is what this is for.
                    let _ = pass(&client, &state);
                });
            }
        });
        Ok(Self { address, state })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Bytes of answers that it let through.
    pub fn sent(&self) -> u64 {
        self.state.sent.load(Ordering::Relaxed)
    }

    /// Whether it has cut a connection.
    pub fn has_cut(&self) -> bool {
        !self.state.cuts_left.load(Ordering::Relaxed)
    }
}

fn pass(client: &TcpStream, state: &State) -> io::Result<()> {
    let server = TcpStream::connect(state.server)?;
    let (mut requests, mut onward) = (client.try_clone()?, server.try_clone()?);
    thread::spawn(move || {
        let _ = io::copy(&mut requests, &mut onward);
        let _ = onward.shutdown(Shutdown::Write);
    });
    let (mut answers, mut back) = (server, client.try_clone()?);
    let mut buffer = vec![0; 16 << 10];
    let mut passed = 0;
    loop {
        let read = answers.read(&mut buffer)?;
        if read == 0 {
            return back.shutdown(Shutdown::Write);
        }
        passed += read as u64;
        if passed > state.cut_after && state.cuts_left.swap(false, Ordering::Relaxed) {
            answers.shutdown(Shutdown::Both)?;
            return back.shutdown(Shutdown::Both);
        }
        back.write_all(&buffer[..read])?;
        state.sent.fetch_add(read as u64, Ordering::Relaxed);
    }
}
