//! Every query.
