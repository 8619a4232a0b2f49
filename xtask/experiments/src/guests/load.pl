# Work for a guest, in the manner of SPEC95: programs that compute on what they keep in memory.
#
# Each line "UNITS" read from /tmp/ask is answered in /tmp/answer with a number that only the kind of work, the units and the
# seed decide: a guest whose memory is not what it wrote answers something else.
use strict;
use warnings;

my ($kind, $seed) = @ARGV;
my @texts;
for my $file (sort glob '/usr/share/vim/vim*/doc/*.txt') {
    open my $handle, '<', $file or die "$file: $!";
    push @texts, do { local $/; <$handle> };
}

# Counts words: a table with pointers all over memory.
sub words {
    my ($turn) = @_;
    my (%count, $sum);
    my $text = substr $texts[$turn % @texts], 0, 24000;
    $count{$1}++ while $text =~ /(\w+)/g;
    $sum = (($sum // 0) * 31 + $count{$_} + length) % 1000003 for sort keys %count;
    return $sum;
}

# Sorts numbers: memory that is written all the time, other content for each seed.
sub numbers {
    my ($turn) = @_;
    my ($next, $sum) = ($seed + $turn + 1, 0);
    my @numbers = map { $next = ($next * 1103515245 + 12345) % 2147483648 } 1 .. 4000;
    $sum = ($sum * 31 + $_) % 1000003 for sort { $a <=> $b } @numbers;
    return $sum;
}

# Looks for patterns: memory that is only read.
sub search {
    my ($turn) = @_;
    my $found = 0;
    for my $text (@texts[map { ($turn * 7 + $_) % @texts } 0 .. 1]) {
        my $part = substr $text, 0, 60000;
        $found++ while $part =~ /\b(?:buffer|window|command)s?\b/g;
    }
    return $found;
}

my %work = (words => [\&words], numbers => [\&numbers], search => [\&search], all => [\&words, \&numbers, \&search]);
my $parts = $work{$kind} or die "no such kind of work: $kind";
open my $ask, '+<', '/tmp/ask' or die "/tmp/ask: $!";
while (my $line = <$ask>) {
    my $sum = 0;
    for my $turn (1 .. $line) {
        $sum = ($sum * 31 + $_->($turn)) % 1000003 for @$parts;
    }
    open my $answer, '>', '/tmp/answer' or die "/tmp/answer: $!";
    print $answer "sum $sum\n";
    close $answer;
}
