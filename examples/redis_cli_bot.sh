#!/usr/bin/env bash
# Prices of one symbol with nothing but bash and redis-cli.
#
# Run it beside a broker:     examples/redis_cli_bot.sh AAPL
# Without keys:               see README.md in this folder
# It ends by Ctrl-C, or after --seconds N. REDIS_HOST, REDIS_PORT and CHANNEL_PREFIX are heeded.
set -euo pipefail

symbol=AAPL seconds=0
while (($#)); do
  case $1 in
    --seconds) seconds=$2; shift 2 ;;
    *) symbol=$1; shift ;;
  esac
done
prefix=${CHANNEL_PREFIX:-}
redis=(redis-cli -h "${REDIS_HOST:-127.0.0.1}" -p "${REDIS_PORT:-6379}")

say() {  # tells the broker; prints how many heard it
  "${redis[@]}" publish "${prefix}broker:registration" \
    "{\"action\": \"$1\", \"symbols\": [\"$symbol\"], \"bot_id\": \"example-cli-bot\"${2:-}}"
}

goodbye() {
  trap - EXIT
  kill "$listener" 2>/dev/null || true
  say unregister >/dev/null || true
  exit 0
}

# Subscribe first, then register. Three lines come for each message; the last one is the payload.
exec 3< <(exec "${redis[@]}" subscribe "${prefix}price:$symbol")
listener=$!
trap goodbye EXIT INT TERM

renew_at=0
while ((seconds == 0 || SECONDS < seconds)); do
  if ((SECONDS >= renew_at)); then  # the lease: the broker forgets a bot that is gone
    heard=$(say register ', "ttl": 30')
    ((heard > 0)) || echo 'no broker is there'
    renew_at=$((SECONDS + (heard > 0 ? 10 : 1)))
  fi
  status=0
  IFS= read -r -t 0.5 -u 3 line || status=$?
  if ((status == 0)); then
    [[ $line == \{* ]] && echo "$line"
  elif ((status <= 128)); then  # not the time limit: redis-cli has ended
    echo 'Redis is gone' >&2
    break
  fi
done
