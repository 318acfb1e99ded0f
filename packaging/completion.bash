# bash completion for vqlm: commands, their sub-commands and long options, as --help of this version has them.
_vqlm() {
  local current=${COMP_WORDS[COMP_CWORD]} program=${COMP_WORDS[0]} words=() word
  for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do
    [[ "$word" == -* ]] && break
    words+=("$word")
  done
  local help
  help=$("$program" "${words[@]}" --help 2>/dev/null) || return
  if [[ "$current" == -* ]]; then
    mapfile -t COMPREPLY < <(compgen -W "$(grep -oE -e '--[a-z][a-z-]*' <<<"$help" | sort -u)" -- "$current")
  elif grep -q '^Subcommands:' <<<"$help"; then
    mapfile -t COMPREPLY < <(compgen -W "$(sed -n '/^Subcommands:/,/^$/s/^  \([a-z-]*\) .*/\1/p' <<<"$help")" -- "$current")
  fi
}
complete -o default -F _vqlm vqlm
