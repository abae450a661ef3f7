//! The analysts' API and page.
