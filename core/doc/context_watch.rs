use acb_sdk::ContextEvent;

pub async fn example(client: acb_sdk::Client) -> acb_sdk::Result<()> {
    let mut watch = client.contexts().watch().key_prefix("plans/").payloads_up_to(16 * 1024).open().await?;
    while let Some(event) = watch.next().await {
        match event? {
            ContextEvent::State(plan) | ContextEvent::Created(plan) | ContextEvent::Updated(plan) => {
                println!("{:?} at revision {}: {:?}", plan.key, plan.rev, plan.payload);
            }
            ContextEvent::Deleted(plan) | ContextEvent::Expired(plan) => println!("{:?} is gone", plan.key),
            ContextEvent::Synced(revision) => println!("all that is there was shown, as of {revision}"),
            _ => {}
        }
    }
    Ok(())
}
