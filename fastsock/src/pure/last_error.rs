//! An error that lasts is logged once.

/// The error that was logged last, until it is over.
#[derive(Debug, Default)]
pub(crate) struct LastError(Option<String>);

impl LastError {
    /// Something is wrong. Returns whether that is news, so that it is logged.
    pub(crate) fn is_news(&mut self, error: &str) -> bool {
        let is_news = self.0.as_deref() != Some(error);
        if is_news {
            self.0 = Some(error.to_owned());
        }
        is_news
    }

    /// Whether what was logged is not over.
    #[cfg(feature = "redis")]
    pub(crate) fn lasts(&self) -> bool {
        self.0.is_some()
    }

    /// All is well. Returns whether it was not before.
    pub(crate) fn is_over(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_news_when_it_changes_or_comes_back() {
        let mut last = LastError::default();
        assert!(!last.is_over());
        assert!(last.is_news("a") && !last.is_news("a"));
        assert!(last.is_news("b") && last.is_news("a"));
        assert!(last.is_over() && !last.is_over());
        assert!(last.is_news("a"));
    }
}
