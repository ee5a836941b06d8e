//! `acb download`: a context to a file. Interrupted, the same command again goes on.

use std::path::{Path, PathBuf};

use acb_types::ContextId;
use clap::Args;
use serde_json::json;

use super::{Context, facts, transfer::Teller};
use crate::{
    connect::Use,
    failure::{Failure, Result},
    output::bytes,
};

/// What `download` takes.
#[derive(Args, Debug)]
pub(crate) struct DownloadArgs {
    /// The context's id, or its key.
    context: String,

    /// Where to; - for standard output. The id, or the last part of the key, when it is left out.
    #[arg(long, short)]
    output: Option<PathBuf>,

    /// As it was at this revision.
    #[arg(long, value_name = "REVISION")]
    at_rev: Option<u64>,

    /// A part of it, from the first byte up to and without the last, such as 0-1048576; goes to standard output unless
    /// --output is given.
    #[arg(long, value_name = "FROM-TO", value_parser = range)]
    range: Option<(u64, u64)>,
}

pub(crate) async fn run(args: DownloadArgs, context: &Context) -> Result {
    let client = context.connect(Use::Long).await?;
    let is_id = args.context.parse::<ContextId>().is_ok();
    let mut download =
        if is_id { client.streams().download(&args.context) } else { client.streams().download_key(&args.context) };
    if let Some(rev) = args.at_rev {
        download = download.at_rev(rev);
    }
    let teller = Teller::new(context.out);
    download = download.progress(teller.tell());
    let to_stdout = args.output.as_deref() == Some(Path::new("-")) || args.range.is_some() && args.output.is_none();
    let last = args.context.rsplit('/').next().unwrap_or(&args.context);
    let path = args.output.clone().unwrap_or_else(|| last.into());
    let outcome = match (to_stdout, args.range) {
        (true, range) => {
            let (from, to) = range.unwrap_or((0, u64::MAX));
            download.range(from..to).to_writer(&mut tokio::io::stdout()).await
        }
        (false, None) => download.to_path(&path).await,
        (false, Some((from, to))) => {
            let mut file = tokio::fs::File::create(&path).await.map_err(|e| Failure::file(&path, &e))?;
            download.range(from..to).to_writer(&mut file).await
        }
    };
    teller.done();
    let done = outcome?;
    client.close().await;
    if to_stdout {
        return Ok(());
    }
    context.out.result(
        || {
            json!({
                "context_id": done.context_id,
                "rev": done.rev,
                "size_bytes": done.size,
                "sha256": done.sha256.to_string(),
                "received_bytes": done.received_bytes,
                "connections": done.connections,
                "path": path,
            })
        },
        || {
            facts(&[
                ("file", path.display().to_string()),
                ("context", done.context_id.clone()),
                ("revision", done.rev.to_string()),
                ("size", bytes(done.size)),
                ("sha256", done.sha256.to_string()),
            ])
        },
    )
}

fn range(text: &str) -> Result<(u64, u64), String> {
    let wrong = || "a range has the form FROM-TO, both in bytes, the second the larger".to_owned();
    let (from, to) = text.split_once('-').ok_or_else(wrong)?;
    let (from, to) = (from.parse().map_err(|_| wrong())?, to.parse().map_err(|_| wrong())?);
    if from < to { Ok((from, to)) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_has_two_numbers_in_order() {
        assert_eq!(range("0-10"), Ok((0, 10)));
        for bad in ["", "5", "5-5", "6-5", "-5", "a-b"] {
            assert!(range(bad).is_err(), "{bad:?}");
        }
    }
}
