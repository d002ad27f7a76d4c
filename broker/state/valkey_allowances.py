"""Allowances in Valkey or Redis, shared by the brokers of several machines."""

import hashlib
from typing import Final

from broker.endpoints.allowances import PURGE_STEP
from broker.errors import Reason, TemporarilyUnavailable
from broker.model import Portion, Quota
from broker.state.valkey_link import Reply, ValkeyFault, reading
from broker.state.valkey_primary import Conversation, Primary
from broker.state.valkey_scripts import Script

MOST_SHARED: Final = 1_000_000
"""How many parties that are not full are remembered, at some 100 bytes each; beyond it nobody draws."""

# The rule is that of ``draw_from``. Moments are in microseconds by the server's clock, durations too.
_DRAW: Final = Script.of(
    f"""
-- After the key: the party, the time that one takes to come back, the burst, how many are wanted, how many
-- parties are held at most, and how many are wanted at least.
local held, party = KEYS[1], ARGV[1]
local each, burst, wanted = tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local least = tonumber(ARGV[6])
local time = redis.call('TIME')
local now = tonumber(time[1]) * 1000000 + tonumber(time[2])

-- Whoever is full again need not be remembered.
local over = redis.call('ZRANGE', held, '-inf', '(' .. string.format('%.0f', now), 'BYSCORE',
  'LIMIT', 0, {PURGE_STEP})
if #over > 0 then redis.call('ZREM', held, unpack(over)) end

local known = redis.call('ZSCORE', held, party)
if not known and redis.call('ZCARD', held) >= tonumber(ARGV[5]) then return {{'full'}} end
local full_at = math.min(math.max(tonumber(known or now), now), now + burst * each)
local left = math.floor((now + burst * each - full_at) / each + 0.000001)
local number = math.min(wanted, left)
if number < least then
  local wait = math.max(0, full_at + least * each - burst * each - now)
  return {{'well', 0, string.format('%.0f', wait)}}
end
full_at = full_at + number * each
redis.call('ZADD', held, string.format('%.0f', full_at), party)
return {{'well', number, '0'}}
""",
)


class ValkeyAllowances:
    """
    Allowances that all brokers of a deployment share, by the server's own clock.

    ``primary`` should be one of its own with a short deadline: whoever waits for it waits for a token. The
    commands are among those that the state needs, and its key begins with the same ``prefix``. What is
    full again is let go of; when the server forgets the rest, everybody has a whole burst.
    """

    def __init__(self, primary: Primary, prefix: str, *, most: int = MOST_SHARED) -> None:
        self._primary = primary
        self._key = f"{{{prefix}}}:limits"
        self._most = most

    def draw(self, party: str, quota: Quota, wanted: int, *, least: int = 1) -> Portion:
        name = hashlib.sha256(party.encode("utf-8", "surrogatepass")).digest()[:16]
        each = f"{1_000_000 / quota.rate:.6f}"
        asked = (1, self._key, name, each, quota.burst, wanted, self._most, least)
        try:
            with self._primary.conversation() as talk, reading():
                word, *rest = _run(talk, asked)
                found = [int(one) for one in rest]
        except ValkeyFault as fault:
            raise _unavailable(fault.detail) from None
        if word != b"well":
            raise _unavailable("full")
        number, wait = found
        return Portion(number, wait / 1_000_000)

    def close(self) -> None:
        self._primary.close()


def _run(talk: Conversation, asked: tuple[bytes | str | int, ...]) -> Reply:
    try:
        return talk.ask("EVALSHA", _DRAW.digest, *asked)
    except ValkeyFault as fault:
        if fault.detail != "NOSCRIPT":
            raise
    return talk.ask("EVAL", _DRAW.text, *asked)


def _unavailable(detail: str) -> TemporarilyUnavailable:
    return TemporarilyUnavailable(Reason.OVERLOADED, detail=f"limits: {detail}")
