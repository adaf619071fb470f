//! Effects: network, randomness — free loopback ports for processes that must be told theirs.

use std::{
    hash::{BuildHasher, RandomState},
    io,
    net::{Ipv4Addr, TcpListener},
};

/// Below the range from which the kernel takes ports for outgoing connections, so that nothing takes a port between
/// the moment it is found free and the moment its owner binds it.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// `N` different free ports.
pub(crate) fn free<const N: usize>() -> io::Result<[u16; N]> {
    let mut held: Vec<TcpListener> = Vec::with_capacity(N);
    let mut ports = [0; N];
    for port in &mut ports {
        // Held until all are found, so that they differ.
        let listener = one()?;
        *port = listener.local_addr()?.port();
        held.push(listener);
    }
    Ok(ports)
}

fn one() -> io::Result<TcpListener> {
    const ATTEMPTS: usize = 100;
    let candidates = std::iter::repeat_with(|| FIRST + random_below(COUNT));
    candidates
        .take(ATTEMPTS)
        .find_map(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).ok())
        .ok_or_else(|| io::Error::other("no free port on loopback"))
}

fn random_below(limit: u16) -> u16 {
    // Each `RandomState` is seeded anew: random enough to keep beds that start at the same time apart.
    let random = RandomState::new().hash_one(0_u8);
    u16::try_from(random % u64::from(limit)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn free_ports_differ() {
        let ports = super::free::<20>().unwrap();
        assert_eq!(ports.iter().collect::<BTreeSet<_>>().len(), 20);
    }
}
