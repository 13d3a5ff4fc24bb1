# Run ./meteo inside WSL from a Windows prompt: the same commands, input, output and exit code. docs/windows.md tells more.
# No param block: PowerShell would take -e and other options for its own.

$checkout = 'meteo'
$distribution = $env:METEO_WSL_DISTRIBUTION

# Run from Explorer's view of a distribution, the script knows where it lies.
if ($PSScriptRoot -match '^\\\\wsl(\.localhost|\$)\\([^\\]+)(\\.+)$') {
    if (-not $distribution) { $distribution = $Matches[2] }
    $checkout = $Matches[3].Replace('\', '/')
}
if ($env:METEO_WSL_CHECKOUT) { $checkout = $env:METEO_WSL_CHECKOUT }

function Stop-WithSentence([string] $sentence) {
    [Console]::Error.WriteLine("error: $sentence")
    exit 2
}

# As one word of the shell, whatever is in it.
function ConvertTo-ShellWord([string] $text) {
    return "'" + $text.Replace("'", "'\''") + "'"
}

if (-not (Get-Command 'wsl.exe' -CommandType Application -ErrorAction SilentlyContinue)) {
    Stop-WithSentence 'There is no WSL on this machine; install it from a prompt of an administrator: wsl --install -d Debian'
}

# Older versions of wsl.exe write two bytes for each letter. Docker Desktop's own distributions have no room for others.
$listed = @(& wsl.exe --list --quiet 2>$null)
if ($LASTEXITCODE -ne 0) { $listed = @() }
$names = @($listed | ForEach-Object { "$_".Replace("`0", '').Trim() } | Where-Object { $_ -and $_ -notlike 'docker-desktop*' })
if ($names.Count -eq 0) {
    Stop-WithSentence 'There is no Linux distribution in WSL; install one: wsl --install -d Debian'
}
if (-not $distribution) { $distribution = $names[0] }
if ($names -notcontains $distribution) {
    Stop-WithSentence "There is no distribution '$distribution' in WSL, there is $($names -join ', '); correct METEO_WSL_DISTRIBUTION."
}

# PowerShell takes what stands between commas for a list: Oslo,NO.
$words = @($args | ForEach-Object { ConvertTo-ShellWord ($_ -join ',') }) -join ' '
$lines = @('unset IFS', 'set +f')
foreach ($name in 'METEO_HOME', 'METEO_STACK', 'METEO_PORT_OFFSET') {
    $value = [Environment]::GetEnvironmentVariable($name)
    if ($value) { $lines += "export $name=" + (ConvertTo-ShellWord $value) }
}
$lines += 'checkout=' + (ConvertTo-ShellWord $checkout)
$lines += @'
case $checkout in /*) ;; *) checkout=$HOME/$checkout ;; esac
if [ ! -x "$checkout/meteo" ]; then
    echo "error: There is no checkout of meteo in $checkout; clone it there, or set METEO_WSL_CHECKOUT to where it is." >&2
    exit 2
fi
exec "$checkout/meteo"
'@
$script = ($lines -join "`n").Replace("`r", '') + ' ' + $words

# On the way lie two shells with quotes of their own; letters and digits they leave as they are.
$packed = [Convert]::ToBase64String([Text.Encoding]::UTF8.GetBytes($script))
& wsl.exe --distribution $distribution --exec sh -c "IFS=;set -f;eval `$(echo $packed|base64 -d)"
exit $LASTEXITCODE
