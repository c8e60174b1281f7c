-- One order event: reflected in the open orders, journalled, and published, in one step.
-- MULTI would not do: it does not roll back. Neither does a script: so what can be repeated comes
-- first, and a refused PUBLISH is answered, not raised, for the event is then in the journal.
--
-- KEYS  1 journal stream   2 open orders hash   3 epoch
-- ARGV  1 our epoch   2 seq   3 dedupe key   4 payload   5 journal length   6 order id   7 "1" if
--       the order is open, "0" if not, "-" where the event is older than what is known of it
--       8 "again" to go on after a lost tail, "publish" for what is journalled and unheard, else ""
--       9… channels
-- Answers {"ok"}, {"done"} for a retry that had already succeeded, or what stands against it:
--       {"epoch", stored} we no longer lead   {"moved", last seq} the place is taken
--       {"lost", last seq} the journal has lost its tail
--       {"unheard", error} journalled, but Redis did not let us publish
local stored = epoch_in(KEYS[3]) -- by EPOCH_IN of bus/fence.py, which goes before this
if stored > tonumber(ARGV[1]) then
  return {'epoch', string.format('%d', stored)}
end

local function publish()
  for i = 9, #ARGV do
    local answer = redis.pcall('PUBLISH', ARGV[i], ARGV[4])
    if type(answer) == 'table' and answer.err then
      return {'unheard', answer.err}
    end
  end
  return {'ok'}
end

local seq = tonumber(ARGV[2])
local last = 0
local newest = redis.call('XREVRANGE', KEYS[1], '+', '-', 'COUNT', 1)
if newest[1] then
  last = tonumber(string.match(newest[1][1], '^(%d+)'))
end

if last >= seq then
  local there = redis.call('XRANGE', KEYS[1], ARGV[2] .. '-0', ARGV[2] .. '-0')
  if there[1] then
    local entry = there[1][2]
    for i = 1, #entry, 2 do
      if entry[i] == 'key' and entry[i + 1] == ARGV[3] then
        if ARGV[8] == 'publish' then
          return publish()
        end
        return {'done'}
      end
    end
  end
  return {'moved', tostring(last)}
end
if last < seq - 1 and ARGV[8] ~= 'again' then
  return {'lost', tostring(last)}
end

if ARGV[7] == '1' then
  redis.call('HSET', KEYS[2], ARGV[6], ARGV[4])
elseif ARGV[7] == '0' then
  redis.call('HDEL', KEYS[2], ARGV[6])
end
redis.call('XADD', KEYS[1], 'MAXLEN', '=', ARGV[5], ARGV[2] .. '-0', 'data', ARGV[4], 'key', ARGV[3])
return publish()
