//! The answers of one datacenter, or of the first of several that has instances.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures_core::Stream;

use crate::discover::Resolution;

use super::follow::Follow;
use super::instance::{Found, Instance, Reading};
use super::watch::{Answer, News, Terms};

/// A channel's view of the datacenters that it may use, the preferred one first.
///
/// A datacenter is watched while none before it has an endpoint that may get calls.
pub(super) struct Datacenters {
    all: Vec<Datacenter>,
    reading: Reading,
    /// Of the datacenter that is in use: which, and how many of its answers and troubles were passed on.
    told: (usize, u64, u64),
}

struct Datacenter {
    terms: Terms,
    follow: Option<Follow>,
    news: News,
    found: Found,
    /// What `found` was read from.
    read: Option<Arc<[Instance]>>,
}

type Item = Result<Resolution, Box<dyn std::error::Error + Send + Sync>>;

impl Datacenters {
    /// `all` has at least one.
    pub(super) fn new(all: impl IntoIterator<Item = Terms>, reading: Reading) -> Self {
        let datacenter = |terms| Datacenter {
            terms,
            follow: None,
            news: News::default(),
            found: Found::default(),
            read: None,
        };
        Self {
            all: all.into_iter().map(datacenter).collect(),
            reading,
            told: (usize::MAX, 0, 0),
        }
    }

    /// Looks at each datacenter until one has endpoints, and no further. Says which is to be used: that one, else the
    /// first. `None` if it is too early to say.
    fn choose(&mut self, cx: &mut Context<'_>) -> Option<usize> {
        let mut chosen = None;
        let mut all_told = true;
        for (index, datacenter) in self.all.iter_mut().enumerate() {
            if chosen.is_some() {
                datacenter.leave();
                continue;
            }
            datacenter.look(&self.reading, cx);
            if datacenter.is_usable() {
                chosen = Some(index);
            } else if datacenter.is_silent() {
                // The next one must not be used only because it was faster.
                all_told = false;
                break;
            }
        }
        chosen.or((all_told && !self.all.is_empty()).then_some(0))
    }

    /// The next thing to say about the datacenter in use.
    fn say(&mut self, index: usize) -> Option<Item> {
        let (told, answers, troubles) = self.told;
        let moved = told != index;
        let datacenter = self.all.get(index)?;
        let news = &datacenter.news;
        if let Some(answer) = &news.answer
            && (moved || news.answers > answers)
        {
            // A trouble that is older than the answer is over; the other is still to be told.
            let after = if news.trouble.is_some() {
                0
            } else {
                news.troubles
            };
            self.told = (index, news.answers, after);
            let mut resolution = datacenter.resolution(answer);
            resolution.note = (!datacenter.is_usable()).then(|| self.why_none());
            return Some(Ok(resolution));
        }
        let trouble = news.trouble.as_ref()?;
        if !moved && news.troubles <= troubles {
            return None;
        }
        self.told = (index, news.answers, news.troubles);
        Some(Err(datacenter.labelled(trouble).into()))
    }

    /// Why no datacenter has an endpoint for calls.
    fn why_none(&self) -> String {
        let parts: Vec<_> = self.all.iter().map(Datacenter::why_none).collect();
        parts.join("; ")
    }
}

impl Datacenter {
    /// Takes in the latest news.
    fn look(&mut self, reading: &Reading, cx: &mut Context<'_>) {
        let follow = self
            .follow
            .get_or_insert_with(|| Follow::start(&self.terms));
        while let Poll::Ready(news) = follow.poll_news(cx) {
            self.news = news;
        }
        let Some(answer) = &self.news.answer else {
            return;
        };
        let same = self
            .read
            .as_ref()
            .is_some_and(|read| Arc::ptr_eq(read, &answer.instances));
        if !same {
            self.found = reading.read(&answer.instances, answer.rejected);
            self.read = Some(Arc::clone(&answer.instances));
        }
    }

    /// What was found is not kept: it would be old when it is needed.
    fn leave(&mut self) {
        self.follow = None;
        self.news = News::default();
        self.found = Found::default();
        self.read = None;
    }

    fn is_usable(&self) -> bool {
        self.found
            .endpoints
            .iter()
            .any(|it| it.weight_or_default() > 0)
    }

    fn is_silent(&self) -> bool {
        self.news.answer.is_none() && self.news.trouble.is_none()
    }

    fn resolution(&self, answer: &Answer) -> Resolution {
        let mut resolution = Resolution::new(self.found.endpoints.iter().cloned());
        resolution.revision = answer.index.map(|index| index.to_string());
        resolution.age = answer.age;
        resolution.origin = self.terms.query.datacenter.clone();
        resolution
    }

    fn why_none(&self) -> String {
        let Some(answer) = &self.news.answer else {
            let trouble = self
                .news
                .trouble
                .as_deref()
                .unwrap_or("it has not answered");
            return self.labelled(trouble);
        };
        let mut text = self.found.counts.to_string();
        if answer.hidden {
            text += "; its ACLs hide some: the token lacks service:read or node:read";
        } else if answer.instances.is_empty() {
            // Before 1.11, agents do not say that they hide something.
            text += "; if its ACLs are on, the token may lack service:read or node:read";
        }
        self.labelled(&text)
    }

    fn labelled(&self, text: &str) -> String {
        match &self.terms.query.datacenter {
            Some(name) => format!("{name}: {text}"),
            None => text.to_owned(),
        }
    }
}

impl Stream for Datacenters {
    type Item = Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let said = self.choose(cx).and_then(|index| self.say(index));
        said.map_or(Poll::Pending, |item| Poll::Ready(Some(item)))
    }
}
