//! x
mod dotenv;
