use acb_sdk::KeySpec;

pub async fn example(client: acb_sdk::Client) -> acb_sdk::Result<()> {
    client.admin().create_tenant("acme", "Acme Inc.").await?;
    let key = client.admin().create_enrolment_key(KeySpec::new("workers").tenant("acme").agent_pattern("worker-*")).await?;
    println!("{}", key.secret);
    Ok(())
}
