use acb_sdk::{ContextAccess, ErrorCode};

pub async fn example(client: acb_sdk::Client) -> acb_sdk::Result<()> {
    let contexts = client.contexts();
    let plan = contexts.share("plans/alpha", "step 1").kind("plan").share_with("worker-1", ContextAccess::Write).await?;
    // Only if nobody changed it meanwhile.
    match contexts.update(&plan.id).payload("step 2").if_rev(plan.rev).await {
        Ok(updated) => println!("version {} at revision {}", updated.version, updated.rev),
        Err(e) if e.code() == ErrorCode::RevisionConflict => println!("somebody was faster"),
        Err(e) => return Err(e),
    }
    let first = contexts.get("plans/alpha").at_rev(plan.rev).await?;
    println!("it was {:?}", first.payload);
    Ok(())
}
