//! redis-rs's cluster client.

use redis::Commands;
use redis::cluster::ClusterClient;

use super::{cluster, node_addrs};

#[test]
fn reads_and_writes_through_its_cluster_client() -> redis::RedisResult<()> {
    let cluster = cluster();
    let urls: Vec<String> = node_addrs(&cluster).iter().map(|a| format!("redis://{a}/")).collect();
    for protocol in ["", "?protocol=resp3"] {
        let client = ClusterClient::new(urls.iter().map(|u| format!("{u}{protocol}")).collect::<Vec<_>>())?;
        let mut connection = client.get_connection()?;
        for i in 0..200 {
            let () = connection.set(format!("rs:{i}"), i)?;
        }
        for i in 0..200 {
            assert_eq!(connection.get::<_, i64>(format!("rs:{i}"))?, i);
        }
        let () = connection.del("rs:counter")?;
        assert_eq!(connection.incr::<_, _, i64>("rs:counter", 42)?, 42);
        assert_eq!(connection.get::<_, Option<String>>("rs:missing")?, None);
        assert!(connection.expire::<_, bool>("rs:counter", 100)?);
        assert!((1..=100).contains(&connection.ttl::<_, i64>("rs:counter")?));
        let value = vec![0_u8; 1 << 20];
        let () = connection.set("rs:large", &value)?;
        assert_eq!(connection.get::<_, Vec<u8>>("rs:large")?, value);
        let () = connection.mset(&[("{rs}a", "1"), ("{rs}b", "2")])?;
        assert_eq!(connection.mget::<_, Vec<String>>(&["{rs}a", "{rs}b"])?, ["1", "2"]);
        assert_eq!(connection.del::<_, i64>(&["{rs}a", "{rs}b", "rs:large"])?, 3);
    }
    Ok(())
}
