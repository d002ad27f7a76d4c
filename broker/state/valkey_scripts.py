"""
What the server does for the broker, in its own language, each script whole or not at all.

All keys of a deployment are in one slot of a cluster. ``facts`` is a hash about the store itself,
``spent`` orders the one-time ids by their last second, ``revoked`` holds what is withdrawn, ``numbers``
orders that by when it was told and ``ends`` by its last second.

Every script begins by looking whether this is still the memory that the caller knows. The id of the
server's replication changes with every start and every promotion, so that a server that may have forgotten
something is told from one that cannot have; a marker in each key tells when it was emptied.
"""

import hashlib
from dataclasses import dataclass
from typing import Final

from broker.state.entries import CLOCK_WENT_BACK, PURGE_STEP, REVOCATION_GRACE

SETTLING: Final = 10
"""How long, in seconds, after an epoch began the other processes may add what they know."""


def settled_after(leeway: int) -> int:
    """The seconds after which everything is answered that was issued since an epoch began."""
    return max(leeway + 1, SETTLING)


REFUSALS: Final = {
    "clock": CLOCK_WENT_BACK,
    "fenced": "state: it was issued before the store began anew",
    "full": "state: full",
    "settling": "state: it began anew just now",
}
"""What is recorded of the words by which a script of a well store refuses."""

# What is wrong is told in a word: a replica answered, something is missing (``lost``), the server began
# anew or was promoted (``moved``), it fell back behind what was seen (``older``), or the epoch is another.
_HEAD: Final = """
local facts, spent, revoked, numbers, ends = unpack(KEYS)
local now = tonumber(ARGV[1]) or tonumber(redis.call('TIME')[1])
local told = redis.call('INFO', 'replication')
local replid = string.match(told, 'master_replid:(%x+)')
local fact = {}
local names = {'epoch', 'replid', 'seen', 'began', 'whole', 'number', 'spent_forgotten', 'revoked_forgotten'}
for at, value in ipairs(redis.call('HMGET', facts, unpack(names))) do fact[names[at]] = value end
for at = 3, #names do
  if names[at] ~= 'whole' then fact[names[at]] = tonumber(fact[names[at]]) end
end

local function whole_number(value) return string.format('%.0f', value) end

local function fault()
  if not string.find(told, 'role:master', 1, true) then return 'replica' end
  for at = 1, #names do
    if not fact[names[at]] then return 'lost' end
  end
  for _, key in ipairs({spent, numbers, ends}) do
    if not redis.call('ZSCORE', key, 'epoch') then return 'lost' end
  end
  if redis.call('HEXISTS', revoked, 'epoch') == 0 then return 'lost' end
  if fact.replid ~= replid then return 'moved' end
end

local function fault_of_caller()
  local found = fault()
  if found then return found end
  if fact.epoch ~= ARGV[2] then return 'other' end
  if fact.seen < tonumber(ARGV[3]) then return 'older' end
end
"""

_CHECKED: Final = """
local wrong = fault_of_caller()
if wrong then return {wrong} end
"""

_PURGE: Final = f"""
-- A few keys whose second was before the given one, having noted the latest such second.
local function let_go(ordered, before, forgotten)
  local over = redis.call('ZRANGE', ordered, '-inf', '(' .. whole_number(before), 'BYSCORE',
    'LIMIT', 0, {PURGE_STEP}, 'WITHSCORES')
  if #over == 0 then return nil end
  fact[forgotten] = math.max(fact[forgotten], tonumber(over[#over]))
  redis.call('HSET', facts, forgotten, whole_number(fact[forgotten]))
  local keys = {{}}
  for at = 1, #over, 2 do keys[#keys + 1] = over[at] end
  return keys
end

local function purge_spent()
  local keys = let_go(spent, now, 'spent_forgotten')
  if keys then redis.call('ZREM', spent, unpack(keys)) end
end

local function purge_revoked()
  local keys = let_go(ends, now - {REVOCATION_GRACE}, 'revoked_forgotten')
  if not keys then return end
  redis.call('HDEL', revoked, unpack(keys))
  redis.call('ZREM', numbers, unpack(keys))
  redis.call('ZREM', ends, unpack(keys))
end
"""

_RECORD: Final = """
local function read(known)
  local last, first_issued, last_issued, number = string.match(known, '^(%d+) (%d+) (%d+) (%d+)$')
  return tonumber(last), tonumber(first_issued), tonumber(last_issued), number
end

-- A second withdrawal widens the first. What is only told again, and is known in full, gets no new number.
local function record(key, last, first_issued, last_issued, is_told_again)
  local known = redis.call('HGET', revoked, key)
  if known then
    local known_last, known_first_issued, known_last_issued = read(known)
    if is_told_again and known_last >= last and known_first_issued <= first_issued
      and known_last_issued >= last_issued
      and redis.call('ZSCORE', numbers, key) and redis.call('ZSCORE', ends, key) then
      return
    end
    last = math.max(last, known_last)
    first_issued = math.min(first_issued, known_first_issued)
    last_issued = math.max(last_issued, known_last_issued)
  end
  -- No number is ever given again, not even by a store that was emptied.
  fact.number = math.max(fact.number + 1, now * 1000000)
  local number = whole_number(fact.number)
  redis.call('HSET', revoked, key, whole_number(last) .. ' ' .. whole_number(first_issued)
    .. ' ' .. whole_number(last_issued) .. ' ' .. number)
  redis.call('ZADD', numbers, number, key)
  redis.call('ZADD', ends, whole_number(last), key)
  redis.call('HSET', facts, 'number', number)
end
"""

_STANDING: Final = f"""
if fact.whole == '' or now < fact.began + {SETTLING} then return {{'settling'}} end
if now <= fact.revoked_forgotten then return {{'clock'}} end
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A script and the name by which the server knows it once it has seen it."""

    text: str
    digest: str

    @classmethod
    def of(cls, *parts: str, flags: str = "") -> "Script":
        """A script of these parts; ``flags`` say when the server may run it."""
        text = "".join((f"#!lua {flags}".rstrip(), *parts))
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


SPEND: Final = Script.of(
    _HEAD,
    _CHECKED,
    _PURGE,
    """
-- After the caller's epoch: how many may be held, and of each id the key, its last second and its first.
purge_spent()
local fresh, added = {}, 0
for at = 5, #ARGV, 3 do
  local key, last, first = ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2])
  local known = redis.call('ZSCORE', spent, key)
  -- An entry with this second or a later one is this token, even after its time.
  if fresh[key] or (known and tonumber(known) >= math.min(now, last)) then
    return {'spent', (at - 5) / 3}
  end
  if last <= fact.spent_forgotten then return {'clock'} end
  if first <= fact.began then return {'fenced'} end
  fresh[key], added = last, added + 1
end
-- The marker is no entry.
if redis.call('ZCARD', spent) - 1 + added > tonumber(ARGV[4]) then return {'full'} end
for key, last in pairs(fresh) do redis.call('ZADD', spent, whole_number(last), key) end
return {'well'}
""",
)

FIND: Final = Script.of(
    _HEAD,
    _CHECKED,
    """
-- After the caller's epoch: the key of an id, its last second and its first.
local last = tonumber(ARGV[5])
local known = redis.call('ZSCORE', spent, ARGV[4])
if known and tonumber(known) >= math.min(now, last) then return {'spent'} end
if last <= fact.spent_forgotten then return {'clock'} end
if tonumber(ARGV[6]) <= fact.began then return {'fenced'} end
return {'well'}
""",
    flags="flags=no-writes",
)

REVOKE: Final = Script.of(
    _HEAD,
    _CHECKED,
    _PURGE,
    _RECORD,
    """
-- After the caller's epoch: how many may be held, '1' for what is told again, and of each withdrawal the
-- key, its last second, and the first and the last second of issue.
purge_revoked()
local held = redis.call('HLEN', revoked) - 1
for at = 6, #ARGV, 4 do held = held + 1 - redis.call('HEXISTS', revoked, ARGV[at]) end
if held > tonumber(ARGV[4]) then return {'full'} end
for at = 6, #ARGV, 4 do
  record(ARGV[at], tonumber(ARGV[at + 1]), tonumber(ARGV[at + 2]), tonumber(ARGV[at + 3]), ARGV[5] == '1')
end
return {'well'}
""",
)

ASK: Final = Script.of(
    _HEAD,
    _CHECKED,
    _STANDING,
    _RECORD,
    """
-- After the caller's epoch: the second of issue, and the keys. The answer has the places of those found.
local issued_at = tonumber(ARGV[4])
local found = {'well'}
for at = 5, #ARGV do
  local known = redis.call('HGET', revoked, ARGV[at])
  if known then
    local _, first_issued, last_issued = read(known)
    if first_issued <= issued_at and issued_at <= last_issued then found[#found + 1] = at - 5 end
  end
end
return found
""",
    flags="flags=no-writes",
)

TELL: Final = Script.of(
    _HEAD,
    _CHECKED,
    _STANDING,
    """
-- After the caller's epoch: the number after which to begin, and how many to tell.
local found = {'well'}
local keys = redis.call('ZRANGE', numbers, '(' .. ARGV[4], '+inf', 'BYSCORE', 'LIMIT', 0, ARGV[5])
for _, key in ipairs(keys) do
  found[#found + 1] = key
  found[#found + 1] = redis.call('HGET', revoked, key)
end
return found
""",
    flags="flags=no-writes",
)

BEGIN: Final = Script.of(
    _HEAD,
    """
-- After the caller's epoch: the name that a new epoch would get, and the caller's own clock.
local wrong = fault()
if wrong == 'replica' then return {wrong} end
if not wrong and fact.seen < tonumber(ARGV[3]) then wrong = 'older' end
if wrong then
  -- Whichever clock is ahead: what was spent before must not look as if it had been issued since.
  local began = whole_number(math.max(now, tonumber(ARGV[5])))
  local seen = whole_number(math.max(now, tonumber(ARGV[3]), fact.seen or 0))
  redis.call('HSET', facts, 'epoch', ARGV[4], 'replid', replid, 'began', began, 'whole', '', 'seen', seen)
  redis.call('HSETNX', facts, 'number', 0)
  redis.call('HSETNX', facts, 'spent_forgotten', -1)
  redis.call('HSETNX', facts, 'revoked_forgotten', -1)
  redis.call('ZADD', spent, '+inf', 'epoch')
  redis.call('ZADD', numbers, -1, 'epoch')
  redis.call('ZADD', ends, '+inf', 'epoch')
  redis.call('HSET', revoked, 'epoch', '')
  return {'well', ARGV[4], wrong}
end
return {'well', fact.epoch, ''}
""",
)

VOUCH: Final = Script.of(
    _HEAD,
    _CHECKED,
    """
if fact.whole == '' then redis.call('HSET', facts, 'whole', 'vouched') end
return {'well'}
""",
)

TEND: Final = Script.of(
    _HEAD,
    _CHECKED,
    _PURGE,
    _RECORD,
    f"""
-- After the caller's epoch: the key of everything, the leeway, and how long what is issued may live.
purge_spent()
purge_revoked()
local is_over = now >= fact.began + {SETTLING}
if is_over and fact.whole == '' then
  -- Nobody knew all that was withdrawn, so all that can have been is withdrawn.
  local issued_until = fact.began + tonumber(ARGV[5])
  record(ARGV[4], issued_until + tonumber(ARGV[6]), 0, issued_until)
  fact.whole = 'withdrawn'
end
fact.seen = math.max(fact.seen, now)
redis.call('HSET', facts, 'whole', fact.whole, 'seen', whole_number(fact.seen))
return {{'well', whole_number(now), whole_number(fact.began), fact.whole, whole_number(fact.seen),
  is_over and 1 or 0}}
""",
    # What has expired makes room, so this has to run where there is none left.
    flags="flags=allow-oom",
)

WRITE: Final = Script.of(
    _HEAD,
    _CHECKED,
    """
redis.call('HSET', facts, 'written', whole_number(now))
return {'well'}
""",
)
