//! Lists in pages, as one stream: the next page is asked for when the one before is used up.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use futures_core::Stream;
use futures_util::StreamExt as _;

use crate::error::Result;

/// One page of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Page<T> {
    /// The items, in the list's order.
    pub items: Vec<T>,
    /// Asks for the next page; `None` on the last.
    pub next: Option<String>,
}

impl<T> Page<T> {
    pub(crate) fn new(items: Vec<T>, token: String) -> Self {
        Self { items, next: (!token.is_empty()).then_some(token) }
    }
}

/// A list as a stream of items. Ends after the last item or the first error.
#[must_use = "a list asks for nothing until it is polled"]
pub struct Pages<T>(Pin<Box<dyn Stream<Item = Result<T>> + Send>>);

impl<T: Send + 'static> Pages<T> {
    /// A list whose pages `fetch` gets, from the first (an empty token) on.
    pub(crate) fn new<F, Fut>(fetch: F) -> Self
    where
        F: Fn(String) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Page<T>>> + Send + 'static,
    {
        let pages = futures_util::stream::unfold((fetch, Some(String::new())), |(fetch, token)| async move {
            let page = fetch(token?).await;
            let next = page.as_ref().map_or(None, |p| p.next.clone());
            Some((page, (fetch, next)))
        });
        let items = pages.flat_map(|page| {
            let (items, error) = match page {
                Ok(page) => (page.items, None),
                Err(error) => (Vec::new(), Some(error)),
            };
            futures_util::stream::iter(items.into_iter().map(Ok).chain(error.map(Err)))
        });
        Self(Box::pin(items))
    }

    /// The next item.
    ///
    /// # Cancel safety
    /// No item is lost; a page that was being fetched is fetched again.
    pub async fn next(&mut self) -> Option<Result<T>> {
        self.0.next().await
    }

    /// All items at once. For lists that are known to be short: it holds them all.
    ///
    /// # Errors
    /// The first error of a page.
    pub async fn all(mut self) -> Result<Vec<T>> {
        let mut items = Vec::new();
        while let Some(item) = self.next().await {
            items.push(item?);
        }
        Ok(items)
    }
}

impl<T> Stream for Pages<T> {
    type Item = Result<T>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.as_mut().poll_next(cx)
    }
}

impl<T> std::fmt::Debug for Pages<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{Error, ErrorCode};

    #[tokio::test]
    async fn pages_are_one_stream_and_end_at_the_first_error() {
        let pages = |failing: bool| {
            Pages::new(move |token: String| async move {
                match token.as_str() {
                    "" => Ok(Page::new(vec![1, 2], "a".into())),
                    "a" if failing => Err(Error::new(ErrorCode::InvalidPageToken, "x", "m")),
                    "a" => Ok(Page::new(vec![3], String::new())),
                    other => panic!("asked for {other}"),
                }
            })
        };
        assert_eq!(pages(false).all().await.unwrap(), [1, 2, 3]);
        let mut list = pages(true);
        assert_eq!(list.next().await.unwrap().unwrap(), 1);
        assert_eq!(list.next().await.unwrap().unwrap(), 2);
        assert!(list.next().await.unwrap().is_err());
        assert!(list.next().await.is_none());
    }
}
