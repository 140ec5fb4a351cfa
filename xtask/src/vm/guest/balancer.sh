# The machine that is attacked: nginx with four workers, and Weir, told to see a flood at the rate that an emulated processor reaches.
. /run/vm/common.sh

network 1 2
cat >nginx.conf <<'END'
worker_processes 4;
pid /tmp/nginx.pid;
error_log /tmp/nginx.log;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/client; proxy_temp_path /tmp/proxy; fastcgi_temp_path /tmp/fastcgi;
    uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server {
        listen 10.99.0.1:80 reuseport;
        location / { return 200 "served\n"; }
    }
}
END
nginx -e /tmp/nginx.log -c /tmp/nginx.conf
cat >weir.toml <<'END'
[defence]
flood_syns_per_second = 200
flood_strays_per_second = 100000
END
start_weir --config weir.toml
say ready
# Until the attacker has done its part.
read -r _
say after "$("$weir" status --json)"
tail -n +1 weir.log nginx.log
"$weir" stop
