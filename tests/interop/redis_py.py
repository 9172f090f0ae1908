"""What a redis-py user does. Arguments: how many primaries there are, then host:port of each node."""

import sys

from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import RedisClusterException, ResponseError

KEYS = 500


def startup(addrs):
    return [ClusterNode(*addr.rsplit(":", 1)) for addr in addrs]


def dbsize(client):
    return client.dbsize(target_nodes=RedisCluster.PRIMARIES)


def check(client, primaries):
    assert client.ping()
    assert len(client.get_primaries()) == primaries, client.get_nodes()
    assert client.get_replicas() == [], "backups are not announced"

    keys = [f"py:{i}" for i in range(KEYS)]
    for key in keys:
        assert client.set(key, "v" + key) is True
    assert client.mget_nonatomic(keys) == ["v" + key for key in keys]
    assert len({client.get_node_from_key(key).name for key in keys}) == primaries

    # Every key is seen exactly once, wherever it is. (Without target_nodes redis-py asks one node only, of Redis too.)
    assert dbsize(client) == KEYS, dbsize(client)
    assert sorted(client.keys("*", target_nodes=RedisCluster.PRIMARIES)) == sorted(keys)
    assert sorted(client.scan_iter(match="py:*", count=50)) == sorted(keys)
    assert sorted(client.scan_iter(match="py:1?")) == sorted(f"py:1{i}" for i in range(10))

    assert client.set("py:nx", 1, nx=True) is True
    assert client.set("py:nx", 2, nx=True) is None
    assert client.get("py:missing") is None
    assert client.incr("py:counter") == 1 and client.incrby("py:counter", 41) == 42
    assert client.decr("py:counter") == 41
    assert client.append("py:nx", "23") == 3 and client.strlen("py:nx") == 3
    assert client.getrange("py:nx", 0, 1) == "12"
    assert client.getdel("py:nx") == "123" and client.exists("py:nx") == 0

    assert client.ttl("py:0") == -1 and client.ttl("py:missing") == -2
    assert client.expire("py:0", 100) and 0 < client.ttl("py:0") <= 100
    assert 0 < client.pttl("py:0") <= 100_000
    assert client.persist("py:0") and client.ttl("py:0") == -1
    assert client.set("py:px", "x", px=100_000) and client.ttl("py:px") > 0
    assert client.type("py:0") == "string" and client.type("py:missing") == "none"

    # One slot by hash tag, several by hand.
    assert client.mset({"{py}a": "1", "{py}b": "2"})
    assert client.mget("{py}a", "{py}b") == ["1", "2"]
    assert client.delete("{py}a", "{py}b") == 2
    client.mset_nonatomic({key: "w" for key in keys})
    assert client.mget_nonatomic(keys) == ["w"] * KEYS
    try:
        client.mget("py:1", "py:2")
        raise AssertionError("keys of different slots in one command must fail")
    except (RedisClusterException, ResponseError):
        pass

    with client.pipeline() as pipe:
        for key in keys:
            pipe.get(key)
        assert pipe.execute() == ["w"] * KEYS

    try:
        client.execute_command("LPUSH", "py:list", "x")
        raise AssertionError("lists are not supported and must say so")
    except ResponseError as error:
        assert str(error).startswith("unknown command"), error

    for key in client.scan_iter(match="*"):
        client.delete(key)
    assert dbsize(client) == 0


def main():
    primaries, addrs = int(sys.argv[1]), sys.argv[2:]
    for protocol in (2, 3):
        client = RedisCluster(startup_nodes=startup(addrs), decode_responses=True, protocol=protocol)
        check(client, primaries)
        client.close()
        # One node is enough to find the others.
        alone = RedisCluster(startup_nodes=startup(addrs[-1:]), protocol=protocol)
        assert len(alone.get_primaries()) == primaries
        value = bytes(range(256)) * 1024
        assert alone.set(b"py:\x00binary", value) and alone.get(b"py:\x00binary") == value
        assert alone.delete(b"py:\x00binary") == 1
        alone.close()
        print("protocol", protocol, "good")
    print("all good")


main()
