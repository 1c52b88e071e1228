//! A device over real HTTP and a real socket, against a server that the test plays itself: what goes over the wire, and
//! when. The rules alone are tested beside them.

mod following;
mod hung;
mod server;
