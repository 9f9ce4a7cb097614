# Strings, hashes, closures, sorting, and an extension that is loaded while the program runs.
use strict;
use warnings;
use Data::Dumper;
use List::Util qw(sum reduce);
use POSIX qw(floor);

my %counts;
$counts{ "word" . $_ % 97 }++ for 1 .. 500;
my @sorted = sort { $counts{$b} <=> $counts{$a} || $a cmp $b } keys %counts;
my @closures = map { my $word = $_; sub { "$word-" . shift } } @sorted[ 0 .. 9 ];
print join( " ", map { $_->(1) } @closures ), "\n";
my $text = join " ", map { ucfirst } @sorted;
$text =~ s/(\w)(\d+)/$2$1/g;
print floor( sum( values %counts ) / 7 ), " ", length $text, "\n";
print reduce { $a . substr $b, 0, 1 } @sorted;
$Data::Dumper::Sortkeys = 1;
print Dumper( \%counts );
