//! Effects: network, files — free loopback ports for processes that must be told theirs.
//!
//! A port that was found free is taken by its owner only a moment later. So that nobody else is given it meanwhile,
//! each process hands out the ports of a block that it alone holds, and each of them again only after all the others.

use std::{
    env,
    fs::File,
    io,
    net::{Ipv4Addr, TcpListener},
    sync::{Mutex, PoisonError},
};

/// Below the range from which the kernel takes ports for outgoing connections.
const FIRST: u16 = 20_000;
const BLOCKS: u16 = 12;
const PER_BLOCK: u16 = 1_000;

/// The ports that are this process's to give.
#[derive(Debug)]
struct Block {
    first: u16,
    /// How far the next one is from the first.
    next: u16,
    /// Locked for as long as this process lives.
    _held: File,
}

impl Block {
    /// The first block that no other process holds.
    fn take() -> io::Result<Self> {
        (0..BLOCKS)
            .find_map(|number| {
                let path = env::temp_dir().join(format!("lockstep-ports-{number}"));
                let held = File::create(path).ok()?;
                held.try_lock().ok()?;
                Some(Self {
                    first: FIRST + number * PER_BLOCK,
                    next: 0,
                    _held: held,
                })
            })
            .ok_or_else(|| io::Error::other("other processes hold all ports set aside for tests"))
    }

    fn one(&mut self) -> io::Result<u16> {
        (0..PER_BLOCK)
            .find_map(|_| {
                let port = self.first + self.next;
                self.next = (self.next + 1) % PER_BLOCK;
                TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok()?;
                Some(port)
            })
            .ok_or_else(|| io::Error::other("no free port on loopback"))
    }
}

/// `N` different free ports.
pub(crate) fn free<const N: usize>() -> io::Result<[u16; N]> {
    static BLOCK: Mutex<Option<Block>> = Mutex::new(None);
    let mut block = BLOCK.lock().unwrap_or_else(PoisonError::into_inner);
    let block = match &mut *block {
        Some(block) => block,
        none => none.insert(Block::take()?),
    };
    let mut ports = [0; N];
    for port in &mut ports {
        *port = block.one()?;
    }
    Ok(ports)
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, net::TcpListener};

    use super::Block;

    #[test]
    fn a_port_is_given_again_only_after_all_others() {
        let given: BTreeSet<_> = (0..50).flat_map(|_| super::free::<10>().unwrap()).collect();
        assert_eq!(given.len(), 500);
    }

    #[test]
    fn no_two_holders_share_a_block_and_a_port_in_use_is_passed_over() {
        let [mut one, other] = [(); 2].map(|()| Block::take().unwrap());
        assert_ne!(one.first, other.first);
        let _taken = TcpListener::bind(("127.0.0.1", one.first)).unwrap();
        assert_eq!(one.one().unwrap(), one.first + 1);
    }
}
