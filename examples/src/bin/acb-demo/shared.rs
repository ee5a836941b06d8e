//! What happens around the findings that the team shares: the reader makes the context and, in the end, asks the planner
//! for its result and looks whether what was shared is the same. And a context that a stranger must not see.

use std::{collections::BTreeMap, time::Duration};

use acb_sdk::{Client, ContextAccess, ContextScope};
use anyhow::{Context as _, Result, bail, ensure};
use serde::Deserialize;

use crate::{
    bus::{PLANNER, READER, WATCHER, WORKERS},
    findings::{self, Findings, Merged, Numbered},
    folder::Work,
    report::{self, Outcome, Table},
};

/// How long the planner may take to answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(10);
/// Key of what the reader keeps to itself.
const NOTES: &str = "survey/notes";

/// What the planner answers to the one who asks.
#[derive(Debug, Deserialize)]
struct PlannersResult {
    complete: bool,
    files: u64,
    unreadable: u64,
    /// Files and lines by language.
    languages: BTreeMap<String, [u64; 2]>,
}

/// What became of the shared context.
#[derive(Debug)]
pub(crate) struct Shared {
    /// Its semantic version in the end.
    pub(crate) version: String,
    /// Files in it.
    pub(crate) files: u64,
    /// What the reader had to add: findings that no worker had merged.
    pub(crate) added: Merged,
    /// Whether it and the planner's answer say the same as the planner's table.
    pub(crate) equal: bool,
}

/// Makes the context that the workers write to.
pub(crate) async fn furnish(reader: &Client) -> Result<()> {
    reader.agents().register(READER).await?;
    let share = reader.contexts().share(findings::KEY, Findings::default().payload()?).kind("survey.findings");
    let share = WORKERS.iter().fold(share, |share, (worker, _)| share.share_with(*worker, ContextAccess::Write));
    let share = share.share_with(PLANNER, ContextAccess::Write).share_with(WATCHER, ContextAccess::Read);
    share.content_type("application/json").await?;
    Ok(())
}

/// Shows that a private context is nobody else's business. Gives the code with which the stranger was refused.
pub(crate) async fn refuse_a_stranger(reader: &Client, stranger: &Client) -> Result<&'static str> {
    let notes = reader.contexts().share(NOTES, "for nobody else").scope(ContextScope::Private).await?;
    let absent = stranger.contexts().get("survey/never-was").await.err().context("what never was is there")?;
    for which in [NOTES, notes.id.as_str()] {
        let Err(refused) = stranger.contexts().get(which).await else {
            bail!("a stranger read a private context");
        };
        ensure!(refused.code() == absent.code(), "a stranger can tell what is there from what is not: {refused}");
    }
    ensure!(reader.contexts().get(NOTES).await?.payload == "for nobody else", "the owner cannot read its own context");
    Ok(absent.code().name())
}

/// Shows that of two changes of one revision only the first is made. Gives the code with which the second was refused.
pub(crate) async fn refuse_the_late(reader: &Client) -> Result<&'static str> {
    let notes = reader.contexts().get(NOTES).await?;
    let change = |text: &'static str| reader.contexts().update(&notes.id).payload(text).if_rev(notes.rev);
    change("the first change").await?;
    let Err(refused) = change("the second").await else {
        bail!("a change overwrote another unseen");
    };
    ensure!(reader.contexts().get(NOTES).await?.payload == "the first change", "a refused change was made");
    Ok(refused.code().name())
}

/// Asks the planner for the result, merges what no worker had merged, and compares all with the planner's table.
pub(crate) async fn conclude(reader: &Client, works: &[Work], table: &Table) -> Result<Shared> {
    let reply = reader.messages().request(PLANNER, "result").timeout(ANSWER_WITHIN).await?;
    let result: PlannersResult = serde_json::from_slice(&reply.payload())?;
    let added = findings::merge(reader, &numbered(works, table)).await?;
    let context = reader.contexts().get(findings::KEY).await?;
    let findings = Findings::of(&context)?;
    let sums = report::sums(table);
    let told: BTreeMap<_, _> = sums.iter().map(|(l, sum)| ((*l).to_owned(), [sum[0], sum[1]])).collect();
    let unreadable = table.values().filter(|outcome| matches!(outcome, Outcome::Unreadable(_))).count() as u64;
    let planner_agrees = result.complete
        && (result.files, result.unreadable) == (table.len() as u64, unreadable)
        && result.languages == told;
    let context_agrees = findings.languages.iter().map(|(l, sum)| (l.as_str(), *sum)).eq(sums);
    let (files, equal) = (findings.files(), planner_agrees && context_agrees);
    Ok(Shared { version: context.version, files, added, equal })
}

fn numbered(works: &[Work], table: &Table) -> Vec<Numbered> {
    let found = works.iter().enumerate().filter_map(|(number, work)| match table.get(&work.name) {
        Some(Outcome::Found(finding)) => Some((number, finding.clone())),
        _ => None,
    });
    found.collect()
}
