//! Devices and sockets in memory.
