mod process;
mod real;
mod schedules;
mod trouble;
