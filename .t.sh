nft -f - <<'N'
table ip t {
  set joined { typeof iifgroup . oifgroup; }
  chain f { type filter hook forward priority filter
   iifname "ty-*" oifname "ty-*" ct state != { established, related } ct status & dnat == 0 iifgroup . oifgroup != @joined counter drop
  }
}
add element ip t joined { 1 . 1 }
add element ip t joined { 1000000000 . 77 }
N
nft list table ip t
