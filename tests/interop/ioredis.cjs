// What an ioredis user does. Arguments: node_modules, how many primaries there are, then host:port of each node.
"use strict";

const assert = require("node:assert/strict");
const path = require("node:path");

const [modules, primaries, ...addrs] = process.argv.slice(2);
const { Cluster } = require(path.join(modules, "ioredis"));

const KEYS = 300;

async function main() {
  const nodes = addrs.map((addr) => {
    const at = addr.lastIndexOf(":");
    return { host: addr.slice(0, at), port: Number(addr.slice(at + 1)) };
  });
  const cluster = new Cluster(nodes, { clusterRetryStrategy: (times) => (times > 5 ? null : 200) });
  cluster.on("error", (error) => console.error("cluster error:", error.message));
  await new Promise((resolve, reject) => {
    cluster.once("ready", resolve);
    cluster.once("end", () => reject(new Error("the cluster never became ready")));
  });
  assert.equal(cluster.nodes("master").length, Number(primaries));
  assert.equal(cluster.nodes("slave").length, 0);

  const keys = Array.from({ length: KEYS }, (_, i) => `io:${i}`);
  await Promise.all(keys.map((key) => cluster.set(key, `v${key}`)));
  assert.deepEqual(await Promise.all(keys.map((key) => cluster.get(key))), keys.map((key) => `v${key}`));

  // Each primary has a part of the keys; together they have all.
  const seen = new Set();
  for (const node of cluster.nodes("master")) {
    let mine = 0;
    for await (const page of node.scanStream({ match: "io:*", count: 50 })) {
      page.forEach((key) => seen.add(key));
      mine += page.length;
    }
    assert.ok(mine > 0, "a primary without keys");
  }
  assert.deepEqual([...seen].filter((key) => /^io:\d+$/.test(key)).sort(), [...keys].sort());

  await cluster.del("io:counter");
  assert.equal(await cluster.incr("io:counter"), 1);
  assert.equal(await cluster.incrby("io:counter", 41), 42);
  assert.equal(await cluster.get("io:missing"), null);
  assert.equal(await cluster.expire("io:counter", 100), 1);
  const ttl = await cluster.ttl("io:counter");
  assert.ok(ttl > 0 && ttl <= 100, `TTL ${ttl}`);
  assert.equal(await cluster.set("io:counter", "x", "NX"), null);

  const binary = Buffer.from(Array.from({ length: 4096 }, (_, i) => i % 256));
  await cluster.set("io:binary", binary);
  assert.ok((await cluster.getBuffer("io:binary")).equals(binary));

  await cluster.mset("{io}a", "1", "{io}b", "2");
  assert.deepEqual(await cluster.mget("{io}a", "{io}b"), ["1", "2"]);
  // A pipeline of ioredis must stay within one node's slots.
  const results = await cluster.pipeline().get("{io}a").incr("{io}b").get("{io}b").exec();
  assert.deepEqual(results, [[null, "1"], [null, 3], [null, "3"]]);
  await assert.rejects(cluster.lpush("io:list", "x"), /unknown command/);

  await Promise.all([...keys, "io:counter", "io:binary", "{io}a", "{io}b"].map((key) => cluster.del(key)));
  await cluster.quit();
  console.log("all good");
}

main().catch((error) => {
  console.error(error);
  process.exit(1);
});
