//! Which process dialled: all apis know a gateway by one address, so a rule for one of them goes by the socket it
//! dialled from.

use std::{
    fs,
    net::{SocketAddr, SocketAddrV4},
};

/// The process that holds the other end of a connection on this machine: `peer` is its address, `here` ours. None when
/// it is gone already or belongs to somebody whose files we may not see.
pub(super) fn dialler(peer: SocketAddr, here: SocketAddr) -> Option<u32> {
    let (SocketAddr::V4(peer), SocketAddr::V4(here)) = (peer, here) else { return None };
    let link = format!("socket:[{}]", inode(&fs::read_to_string("/proc/net/tcp").ok()?, peer, here)?);
    let mut processes = fs::read_dir("/proc").ok()?.flatten();
    processes.find_map(|process| {
        let pid = process.file_name().to_str()?.parse().ok()?;
        let mut files = fs::read_dir(process.path().join("fd")).ok()?.flatten();
        files.any(|file| fs::read_link(file.path()).is_ok_and(|to| to.as_os_str() == link.as_str())).then_some(pid)
    })
}

/// The tenth column of `/proc/net/tcp` in the line of this pair of addresses.
fn inode(table: &str, local: SocketAddrV4, remote: SocketAddrV4) -> Option<&str> {
    let (local, remote) = (hex(local), hex(remote));
    table.lines().find_map(|line| {
        let mut columns = line.split_whitespace().skip(1);
        (columns.next()? == local && columns.next()? == remote).then(|| columns.nth(6)).flatten()
    })
}

/// As the kernel prints an address: the four bytes as one number of this machine, then the port.
fn hex(address: SocketAddrV4) -> String {
    format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
}
