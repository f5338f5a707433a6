//! A short form of every fault, on servers and processes of its own. What is asserted are counts and
//! orders, and no times.

mod faults;
