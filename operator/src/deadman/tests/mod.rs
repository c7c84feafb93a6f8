mod process;
pub mod real;
mod schedules;
mod trouble;
