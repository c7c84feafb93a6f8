//! The three roles in this process and, for what only a process can show, the binary itself.

#[cfg(test)]
mod caller;
#[cfg(test)]
mod process;
#[cfg(test)]
mod serve;
#[cfg(test)]
mod store;
#[cfg(test)]
mod support;
