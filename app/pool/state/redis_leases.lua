-- Who holds which lease: every step of the book, as one script, by the server's clock.
--   KEYS[1]  prefix of every key, a hash tag: all of them live in one slot of a cluster
--   ARGV     step, holder, seconds that a holder lives without a sign, arguments of the step
-- The answer begins with the server's time. What is kept:
--   holders          sorted set   holder by when it dies
--   held:HOLDER      hash         token -> account
--   waits:HOLDER     hash         token -> JSON list of accounts waited for
--   seats:ACCOUNT    hash         token -> taken at
--   accounts         set          accounts with seats taken
--   queue:ACCOUNT    sorted set   token by when its wait began
--   pace:KEY         sorted set   token by when its request was counted
--   turns:CURSOR     hash         account -> credit
--   generation       string       changes when the data were lost
local prefix, step, holder, ttl = KEYS[1], ARGV[1], ARGV[2], tonumber(ARGV[3])
local clock = redis.call('TIME')
local now = tonumber(clock[1]) + tonumber(clock[2]) / 1000000
local DAY = 90000

local function key(kind, name) return prefix .. kind .. ':' .. name end
local function told(number) return string.format('%.6f', number) end

local function ring() redis.call('PUBLISH', prefix .. 'freed', '') end

local function free(account, token)
  redis.call('HDEL', key('seats', account), token)
  if redis.call('EXISTS', key('seats', account)) == 0 then
    redis.call('SREM', prefix .. 'accounts', account)
  end
end

local function occupy(who, token, account)
  redis.call('HSET', key('held', who), token, account)
  redis.call('HSET', key('seats', account), token, told(now))
  redis.call('SADD', prefix .. 'accounts', account)
end

-- Ends a wait; returns whether others wait for the same accounts.
local function unqueue(who, token)
  local listed = redis.call('HGET', key('waits', who), token)
  if not listed then return false end
  local others = false
  for _, account in ipairs(cjson.decode(listed)) do
    redis.call('ZREM', key('queue', account), token)
    others = others or redis.call('EXISTS', key('queue', account)) == 1
  end
  redis.call('HDEL', key('waits', who), token)
  return others
end

local function forget(who)
  local held = redis.call('HGETALL', key('held', who))
  for i = 1, #held, 2 do free(held[i + 1], held[i]) end
  for _, token in ipairs(redis.call('HKEYS', key('waits', who))) do unqueue(who, token) end
  redis.call('DEL', key('held', who), key('waits', who))
  redis.call('ZREM', prefix .. 'holders', who)
end

local function bury()
  local dead = redis.call('ZRANGEBYSCORE', prefix .. 'holders', '-inf', told(now))
  for _, who in ipairs(dead) do forget(who) end
  return #dead > 0
end

local function alive() redis.call('ZADD', prefix .. 'holders', told(now + ttl), holder) end

-- When the paces of a seat have room again, 0 when they have.
local function paced_until(paces)
  local latest = 0
  for _, pace in ipairs(paces) do
    local name, limit, window = key('pace', pace[1]), pace[2], pace[3]
    if limit > 0 then
      redis.call('ZREMRANGEBYSCORE', name, '-inf', told(now - window))
      local count = redis.call('ZCARD', name)
      if count >= limit then
        local entry = redis.call('ZRANGE', name, count - limit, count - limit, 'WITHSCORES')
        latest = math.max(latest, tonumber(entry[2]) + window)
      end
    end
  end
  return latest
end

local function ahead(account, token, since)
  local queue = key('queue', account)
  local count = redis.call('ZCARD', queue)
  if count == 0 then return 0 end
  if since == '' then
    if redis.call('ZSCORE', queue, token) then count = count - 1 end
    return count
  end
  count = redis.call('ZCOUNT', queue, '-inf', '(' .. since)
  if redis.call('ZSCORE', queue, token) and
      tonumber(redis.call('ZSCORE', queue, token)) < tonumber(since) then
    count = count - 1
  end
  for _, other in ipairs(redis.call('ZRANGEBYSCORE', queue, since, since)) do
    if other < token then count = count + 1 end
  end
  return count
end

local function pick(manner, cursor, open)
  if manner == 'in_order' or #open == 1 then return open[1] end
  if manner == 'least_busy' then
    local lowest, equals = nil, {}
    for _, seat in ipairs(open) do
      if lowest == nil or seat.load < lowest then lowest = seat.load; equals = {} end
      if seat.load == lowest then table.insert(equals, seat) end
    end
    open = equals
    if #open == 1 then return open[1] end
  end
  local turns, total, chosen, richest = key('turns', cursor), 0, nil, nil
  for _, seat in ipairs(open) do
    total = total + seat.weight
    local credit = redis.call('HINCRBY', turns, seat.account, seat.weight)
    if richest == nil or credit > richest then chosen = seat; richest = credit end
  end
  redis.call('HINCRBY', turns, chosen.account, -total)
  redis.call('EXPIRE', turns, DAY)
  return chosen
end

local steps = {}

function steps.take(token, since, groups, manner, cursor)
  local mine = redis.call('HGET', key('held', holder), token)
  if mine then return {'taken', mine} end  -- asked twice: the first answer was lost
  bury()
  alive()
  local busy, paced, accounts = false, 0, {}
  groups = cjson.decode(groups)
  for _, group in ipairs(groups) do
    local open = {}
    for _, seat in ipairs(group) do
      local account, concurrency, weight, paces = seat[1], seat[2], seat[3], seat[4]
      table.insert(accounts, account)
      local until_ = paced_until(paces)
      local taken = redis.call('HLEN', key('seats', account))
      if until_ > 0 then
        if paced == 0 or until_ < paced then paced = until_ end
      elseif taken + ahead(account, token, since) >= concurrency then
        busy = true
      else
        table.insert(open, {
          account = account, weight = weight, paces = paces, load = taken / concurrency
        })
      end
    end
    if #open > 0 then
      local chosen = pick(manner, cursor, open)
      occupy(holder, token, chosen.account)
      for _, pace in ipairs(chosen.paces) do
        local name = key('pace', pace[1])
        redis.call('ZADD', name, told(now), token)
        redis.call('ZREMRANGEBYSCORE', name, '-inf', told(now - pace[3]))
        redis.call('EXPIRE', name, math.ceil(pace[3]) + 60)
      end
      if unqueue(holder, token) then ring() end
      return {'taken', chosen.account}
    end
  end
  if since ~= '' then
    unqueue(holder, token)
    redis.call('HSET', key('waits', holder), token, cjson.encode(accounts))
    for _, account in ipairs(accounts) do
      redis.call('ZADD', key('queue', account), since, token)
    end
  end
  return {'full', busy and '1' or '0', told(paced)}
end

function steps.give_back(...)
  local seats = {...}
  local waited_for = false
  for at = 1, #seats, 2 do
    local token, account = seats[at], seats[at + 1]
    redis.call('HDEL', key('held', holder), token)
    free(account, token)
    -- A wait is left when the server was away as the seat was taken.
    local others = unqueue(holder, token)
    waited_for = waited_for or others or redis.call('EXISTS', key('queue', account)) == 1
  end
  if waited_for then ring() end
  return {}
end

function steps.refund(token, ...)
  for _, pace in ipairs({...}) do redis.call('ZREM', key('pace', pace), token) end
  return {}
end

function steps.leave(token)
  if unqueue(holder, token) then ring() end
  return {}
end

-- Ends the waits that nobody waits any more; returns whether others may profit.
local function end_waits(held, waiting, young)
  local others = false
  for _, token in ipairs(redis.call('HKEYS', key('waits', holder))) do
    local account = cjson.decode(redis.call('HGET', key('waits', holder), token))[1]
    local since = account and redis.call('ZSCORE', key('queue', account), token) or '0'
    if held[token] or (not waiting[token] and tonumber(since) <= now - young) then
      if unqueue(holder, token) then others = true end
    end
  end
  return others
end

function steps.renew(held, waiting, forced, known, proposed, young)
  local freed = bury()
  redis.call('SET', prefix .. 'generation', proposed, 'NX')
  local generation = redis.call('GET', prefix .. 'generation')
  forced = forced == '1' or (known ~= '' and known ~= generation)
  alive()
  local answer, mine = {generation}, {}
  for _, lease in ipairs(cjson.decode(held)) do
    local token, account, concurrency = lease[1], lease[2], lease[3]
    mine[token] = true
    local noted = redis.call('HGET', key('held', holder), token)
    if noted ~= account then
      if noted then free(noted, token) end
      if forced or redis.call('HLEN', key('seats', account)) < concurrency then
        occupy(holder, token, account)
      else
        redis.call('HDEL', key('held', holder), token)
        table.insert(answer, token)
      end
    end
  end
  local noted = redis.call('HGETALL', key('held', holder))
  for i = 1, #noted, 2 do
    local token, account = noted[i], noted[i + 1]
    local at = tonumber(redis.call('HGET', key('seats', account), token) or '0')
    if not mine[token] and at <= now - tonumber(young) then
      redis.call('HDEL', key('held', holder), token)
      free(account, token)
      freed = true
    end
  end
  local waits = {}
  for _, token in ipairs(cjson.decode(waiting)) do waits[token] = true end
  if end_waits(mine, waits, tonumber(young)) then freed = true end
  if freed then ring() end
  return answer
end

function steps.spent(paces)
  local answer = {}
  for _, pace in ipairs(cjson.decode(paces)) do
    local name = key('pace', pace[1])
    local from = '(' .. told(now - pace[3])
    local oldest = redis.call('ZRANGEBYSCORE', name, from, '+inf', 'WITHSCORES', 'LIMIT', 0, 1)
    table.insert(answer, tostring(redis.call('ZCOUNT', name, from, '+inf')))
    table.insert(answer, oldest[2] or '0')
  end
  return answer
end

steps['in_flight'] = function()
  bury()
  local answer = {}
  for _, account in ipairs(redis.call('SMEMBERS', prefix .. 'accounts')) do
    table.insert(answer, account)
    table.insert(answer, tostring(redis.call('HLEN', key('seats', account))))
  end
  return answer
end

steps['end'] = function()
  forget(holder)
  ring()
  return {}
end

local answer = steps[step](unpack(ARGV, 4))
table.insert(answer, 1, told(now))
return answer
