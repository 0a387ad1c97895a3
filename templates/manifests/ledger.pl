# ledger.pl FOLDER ADDRESS:PORT: keeps plain files on the disk, to which clients outside the cluster write.
#
# The server greets with `ready HOST`. Each request is one line, and each answer is one line, except that of read:
#   append RUN SEQ CONTENT   ok SEQ HOST, when the line `SEQ HOST CONTENT` is at the end of the file and on the disk
#   last RUN                 last HOST BYTES LINE: the file's size, and its last line, if it has one
#   read RUN                 line …, for every line of the file, and then end COUNT
#   remove RUN               removed RUN
# If a request fails, the answer is `error WHY`, and never ok. A line that was not acknowledged may be in the file
# completely, partly, or not at all. A single process serves all clients in turn, so each file has one writer and needs
# no lock.
use strict;
use warnings;

# Set this before anything else is loaded, because the first process of a container ignores signals that it does not
# handle.
BEGIN { $SIG{TERM} = $SIG{INT} = sub { exit 0 } }
use Errno;
use Fcntl qw(O_APPEND O_CREAT O_RDWR SEEK_END SEEK_SET);
use IO::Handle;
use IO::Select;
use IO::Socket::INET;
use POSIX ();

my ($folder, $address) = @ARGV;
# The name of the pod, which the runtime passes to every container.
my $host = $ENV{HOSTNAME} // (POSIX::uname())[1];
# The longest request, in bytes.
my $longest = 10_000;

# For each run: its open file, and the reason why writes to it are refused after an error.
my (%files, %doubts);

# After a failed fsync, the kernel may treat pages as clean that never reached the disk, and the next fsync would
# succeed.
sub on_disk {
    my ($run, $handle) = @_;
    return if $handle->sync;
    $doubts{$run} = "fsync: $!";
    die "$doubts{$run}\n";
}

# A new file survives a power cut only if its folder was synced, too.
sub sync_folder {
    my ($run) = @_;
    open my $handle, '<', $folder or die "open $folder: $!\n";
    on_disk($run, $handle);
}

sub file_of {
    my ($run) = @_;
    return $files{$run} if $files{$run};
    sysopen my $file, "$folder/$run", O_RDWR | O_CREAT | O_APPEND, 0600 or die "open: $!\n";
    sync_folder($run);
    return $files{$run} = $file;
}

sub append {
    my ($run, $seq, $content) = @_;
    die "nothing is promised for $run any more, after $doubts{$run}\n" if $doubts{$run};
    my $file = file_of($run);
    my $end = -s $file;
    my $line = "$seq $host $content\n";
    # If a power cut has torn the last line, end it, so that it does not become the beginning of this one.
    my $last = "\n";
    if ($end > 0) {
        defined sysseek $file, -1, SEEK_END and sysread $file, $last, 1 or die "read: $!\n";
    }
    $line = "\n$line" if $last ne "\n";
    my $written = syswrite $file, $line;
    if (!defined $written || $written < length $line) {
        my $why = defined $written ? "only $written bytes" : $!;
        truncate $file, $end;
        die "write: $why\n";
    }
    on_disk($run, $file);
    return "ok $seq $host\n";
}

sub last_of {
    my ($run) = @_;
    my ($size, $tail) = (0, '');
    if (open my $file, '<', "$folder/$run") {
        $size = -s $file;
        my $from = $size > $longest ? $size - $longest : 0;
        defined sysseek $file, $from, SEEK_SET and defined sysread $file, $tail, $longest or die "read: $!\n";
    }
    elsif (!$!{ENOENT}) { die "open: $!\n" }
    my ($line) = $tail =~ /([^\n]*)\n?\z/;
    return "last $host $size $line\n";
}

sub lines_of {
    my ($run) = @_;
    my @lines;
    if (open my $file, '<', "$folder/$run") {
        $!     = 0;
        @lines = <$file>;
        die "read: $!\n" if $!;
    }
    elsif (!$!{ENOENT}) { die "open: $!\n" }
    chomp @lines;
    return join '', (map { "line $_\n" } @lines), 'end ' . @lines . "\n";
}

sub remove {
    my ($run) = @_;
    delete $files{$run};
    unlink "$folder/$run" or $!{ENOENT} or die "remove: $!\n";
    sync_folder($run);
    return "removed $run\n";
}

sub answer {
    my ($request) = @_;
    # A run names a file in the folder, and none elsewhere.
    my $run    = qr/([A-Za-z0-9_-]{1,100})/;
    my $answer = eval {
            $request =~ /\Aappend $run ([0-9]{1,15}) (.*)\z/ ? append($1, $2, $3)
          : $request =~ /\Alast $run\z/                      ? last_of($1)
          : $request =~ /\Aread $run\z/                      ? lines_of($1)
          : $request =~ /\Aremove $run\z/                    ? remove($1)
          :   die "expected append RUN SEQ CONTENT, last RUN, read RUN or remove RUN\n";
    };
    return $answer // "error $@";
}

my $listener = IO::Socket::INET->new(LocalAddr => $address, Listen => 128, ReuseAddr => 1, Blocking => 0)
  or die "cannot listen on $address: $@\n";
print STDERR 'listening on ' . $listener->sockhost . ':' . $listener->sockport . "\n";

# For each connection: input that is not a complete line yet, and output that the client has not taken yet.
my (%came, %due);
my ($readers, $writers) = (IO::Select->new($listener), IO::Select->new);

sub hang_up {
    my ($client) = @_;
    $_->remove($client) for $readers, $writers;
    delete $_->{$client} for \%came, \%due;
    close $client;
}

sub send_due {
    my ($client) = @_;
    my $sent = syswrite $client, $due{$client};
    return hang_up($client) if !defined $sent && !$!{EAGAIN};
    substr $due{$client}, 0, $sent // 0, '';
    length $due{$client} ? $writers->add($client) : $writers->remove($client);
}

sub take {
    my ($client) = @_;
    my $got = sysread $client, $came{$client}, $longest, length $came{$client};
    return if !defined $got && $!{EAGAIN};
    return hang_up($client) if !$got;
    $due{$client} .= answer($1) while $came{$client} =~ s/\A([^\n]*)\n//;
    return hang_up($client) if length $came{$client} > $longest;
    send_due($client) if length $due{$client};
}

sub welcome {
    my $client = $listener->accept or return;
    $client->blocking(0);
    # A client that lost its power does not close its connection; keepalive detects that.
    $client->sockopt(SO_KEEPALIVE, 1);
    $came{$client} = '';
    $due{$client}  = "ready $host\n";
    $readers->add($client);
    send_due($client);
}

$SIG{PIPE} = 'IGNORE';
while (1) {
    my ($readable, $writable) = IO::Select::select($readers, $writers);
    for my $socket (@{ $readable // [] }) {
        $socket == $listener ? welcome() : take($socket);
    }
    # Some of these clients may just have been disconnected.
    for my $client (grep { exists $due{$_} } @{ $writable // [] }) { send_due($client) }
}
